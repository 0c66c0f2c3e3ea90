import json
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuttlefish.record.folder import RANK_COLUMNS, csv_line, cut_back, read_epochs, read_profile, read_ranks

HEADER = ",".join(RANK_COLUMNS[:-1])


TAILS = ["", "{", '{"epoch": 1', "1,a,0.5", "\n", "not a row\n", "[]\n"]


def write(folder, epochs, tail=""):
    rows = [json.dumps({"epoch": epoch, "x": epoch / 3}) + "\n" for epoch in range(1, epochs + 1)]
    (folder / "epochs.jsonl").write_text("".join(rows) + tail)
    pairs = product(range(epochs + 1), ("a", "b,c"))
    ranks = [csv_line([epoch, layer, 1 / (epoch + 3), 2, 4]) for epoch, layer in pairs]
    (folder / "ranks.csv").write_text("\n".join([HEADER, *ranks]) + "\n" + tail)


@settings(deadline=None, max_examples=40)
@given(written=st.integers(0, 8), kept=st.integers(0, 9), tail=st.sampled_from(TAILS))
def test_cut_back_is_exact_byte_for_byte(tmp_path_factory, written, kept, tail):
    folder, expected = tmp_path_factory.mktemp("cut"), tmp_path_factory.mktemp("expected")
    write(folder, written, tail)
    write(expected, min(written, kept))
    cut_back(folder, kept)
    for name in ("epochs.jsonl", "ranks.csv"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes()
    cut_back(folder, kept)
    assert (folder / "epochs.jsonl").read_bytes() == (expected / "epochs.jsonl").read_bytes()


def test_rank_rows_come_back_as_numbers_exactly(tmp_path):
    write(tmp_path, 2)
    rows = read_ranks(tmp_path)
    assert len(rows) == 6
    assert rows[3] == {"epoch": 1, "layer": "b,c", "stable_rank": 1 / 4, "scaled_rank": 2.0, "full_rank": 4}


def test_an_empty_folder_reads_as_nothing(tmp_path):
    assert read_epochs(tmp_path) == [] and read_ranks(tmp_path) == [] and read_profile(tmp_path) is None
    cut_back(tmp_path, 3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("torn", ['{"epoch": 3, "x"', '{"epoch": 3}', "\x00\x00"])
def test_readers_pass_over_a_torn_last_line(tmp_path, torn):
    write(tmp_path, 2, torn)
    assert [row["epoch"] for row in read_epochs(tmp_path)] == [1, 2]
    assert {row["epoch"] for row in read_ranks(tmp_path)} == {0, 1, 2}


@pytest.mark.parametrize("line", [
    "3,conv1,x,y,16", "²,conv1,1,1,16", f"{'9' * 5000},conv1,1,1,16", "3,conv1,0,0,16", "3,conv1,1,1,0",
    "3,conv1,1,-1,16", "3,conv1,nan,1,16",
    "3,conv1,1,inf,16", "3,conv1,1,1,1.5", "no row",
])  # fmt: skip
def test_a_line_that_is_no_ranks_is_left_out_and_told(tmp_path, caplog, line):
    (tmp_path / "ranks.csv").write_text(f"{HEADER}\n0,conv1,1,1,16\n{line}\n")
    assert [row["epoch"] for row in read_ranks(tmp_path)] == [0]
    assert "ranks.csv: 1 of 2 lines are no ranks and are left out" in caplog.text


def test_a_layer_of_which_nothing_is_left_has_rank_0(tmp_path, caplog):
    """As LC chooses it."""
    (tmp_path / "ranks.csv").write_text(f"{HEADER}\n15,conv1,5.3,0,16\n")
    row = {"epoch": 15, "layer": "conv1", "stable_rank": 5.3, "scaled_rank": 0.0, "full_rank": 16}
    assert read_ranks(tmp_path) == [row]
    assert not caplog.records


def test_a_folder_in_place_of_the_ranks_is_told(tmp_path, caplog):
    (tmp_path / "ranks.csv").mkdir()
    assert read_ranks(tmp_path) == [] and "cannot be read (IsADirectoryError)" in caplog.text


@pytest.mark.parametrize("line", ['1,"a"\rb,0.5,2,4', '\r"\r', '1,"a,0.5,2,4'])
def test_a_rank_row_that_is_no_csv_costs_no_other_row(tmp_path, line):
    write(tmp_path, 2)
    sound = read_ranks(tmp_path)
    with (tmp_path / "ranks.csv").open("a", newline="") as file:
        file.write(f"{line}\n")
    assert read_ranks(tmp_path) == sound
    assert cut_back(tmp_path, 2) == ["ranks.csv: 1 damaged rows are left out"]
    assert read_ranks(tmp_path) == sound


def test_lost_ranks_are_told(tmp_path):
    write(tmp_path, 3)
    lines = (tmp_path / "ranks.csv").read_text().splitlines()
    times = len({line.split(",")[0] for line in lines[1:]})
    assert cut_back(tmp_path, 3, measured=times) == []
    (tmp_path / "ranks.csv").write_text(lines[0] + "\n" + lines[1] + "\n")
    told = f"ranks.csv has lost rows: it has ranks of 1 times, the checkpoint of {times}"
    assert cut_back(tmp_path, 3, measured=times) == [told]
    (tmp_path / "ranks.csv").write_text("")
    assert cut_back(tmp_path, 3, measured=times) == [told.replace("of 1 times", "of 0 times")]
