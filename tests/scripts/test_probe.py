"""The script that probes other libraries' networks, on the quickest of them."""

import pytest

from scripts.probe.__main__ import main, probe
from scripts.probe.networks import NETWORKS


def test_enough_networks_each_once():
    names = [name for _, name, _ in NETWORKS]
    assert len(set(names)) == len(names) >= 40


@pytest.mark.parametrize("name", ["two heads", "U-Net"])
def test_a_row_says_what_came_out(name):
    library, _, build = next(entry for entry in NETWORKS if entry[1] == name)
    row = probe(library, name, build)
    assert (row.exact, row.trains, row.compiles, row.exports) == ("yes",) * 4
    assert 0 < row.low_rank < row.layers
    assert str(row).startswith(f"| {name} | torch | {row.layers} | {row.low_rank} | ")


def test_rows_of_a_choice_take_their_places_in_the_page(tmp_path, capsys):
    page = tmp_path / "page.md"
    for word in ("1-d", "heads", "1-d"):
        assert main([word, "--page", str(page)]) == 0
    assert "it is a Conv1d" in capsys.readouterr().out
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ") and "network" not in line]
    assert [row.split(" | ")[0] for row in rows] == ["| two heads", "| 1-d convolutions"]
