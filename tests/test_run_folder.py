from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuttlefish.run_folder import RANK_COLUMNS, csv_line, cut_back, read_epochs, read_profile, read_ranks

HEADER = ",".join(RANK_COLUMNS)


TAILS = ["", "{", '{"epoch": 1', "1,a,0.5", "\n", "not a row\n", "[]\n"]


def write(folder, epochs, tail=""):
    rows = [json.dumps({"epoch": epoch, "x": epoch / 3}) + "\n" for epoch in range(1, epochs + 1)]
    (folder / "epochs.jsonl").write_text("".join(rows) + tail)
    ranks = [csv_line([epoch, layer, 1 / (epoch + 3), 2, 4]) for epoch in range(epochs + 1) for layer in ("a", "b,c")]
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
