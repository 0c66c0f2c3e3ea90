"""Section 4.3's overheads: of runs where their times are evidence, of benches, and composed, each with the
paper's figure beside it."""

from dataclasses import replace
from pathlib import Path

import pytest

from cuttlefish.evidence.benches import Bench, load_benches
from cuttlefish.evidence.records import load_evidence
from cuttlefish.planning.spec import Scale, TableSpec
from cuttlefish.report.claims.entry import load_claims
from cuttlefish.report.claims.judge import judge
from cuttlefish.report.paper import PAPER
from cuttlefish.report.tables.build import all_tables
from cuttlefish.report.tables.table import Table
from tests.helpers.planned_runs import found, ran, spec_of, wanted

RESULTS = Path(__file__).resolve().parents[2] / "results"
CLAIMS = {claim["id"]: claim for claim in load_claims(PAPER / "claims.yaml")}
TIMES = "Their times are no evidence."


def table_of(collection, scale="reduced", benches=(), times="") -> Table:
    one = TableSpec("Overheads", "overheads")
    spec = replace(spec_of(), tables={"overheads": one}, scales={scale: Scale(times=times)})
    plan = [wanted("low", seed, table="overheads", scale=scale) for seed in (0, 1)]
    ((table,), _) = all_tables(spec, plan, collection, CLAIMS, scale, benches)
    return table


def texts(table: Table, block: int) -> dict[str, list[str]]:
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.blocks[block].rows}


def runs(scale):
    parts = {"train": 50.0, "profiling": 2.0, "switch": 1.0, "data": 0.5}
    both = [{"compute_seconds": 100.0, "seconds": parts | {"ranks": 1.0 + seed}} for seed in (0, 1)]
    return found(*(ran("low", seed, scale=scale, **times) for seed, times in enumerate(both)))


def test_of_runs_the_clock_is_shown_beside_the_paper():
    shown = texts(table_of(runs("paper"), "paper"), 0)
    assert shown["profiling"][:4] == ["2.00 s", "2 %", "compute_seconds", "3.98 s (P 4.3) · 0.16 % (P 4.3)"]
    assert shown["ranks"][:2] == ["1.50 s ± 0.71 s", "1.5 % ± 0.71 %"]
    assert "0.49 s an epoch (P 4.3) · 1.6 % (P 4.3)" in shown["ranks"]
    assert shown["data"][:2] == ["0.50 s", "0.5 %"]
    assert shown["checkpoint"][:2] == ["–", "–"], "what a run's clock lacks is unknown"
    empty = table_of(found(), "paper")
    assert empty.blocks[0].rows[0][0].text == "no run"
    assert any(note.startswith("No bench on hardware of this scale") for note in empty.notes)


def test_times_that_are_no_evidence_are_not_shown():
    assert len(table_of(runs("reduced")).blocks) == 1
    table = table_of(runs("reduced"), times=TIMES)
    assert table.blocks == [] and f"{TIMES} They are not shown." in table.notes


def test_benches_and_what_they_compose_stand_beside_the_paper():
    collection, benches = load_evidence(RESULTS / "records"), load_benches(RESULTS / "bench")
    table = table_of(collection, "reduced", benches, TIMES)
    last = len(table.blocks) - 1
    title, *_, composed_title = [block.title for block in table.blocks]
    measured, composed = texts(table, 0), texts(table, last)
    of_other_ranks = texts(table, 1)["ranks of 21 layers, weights random (ResNet-18)"]
    assert of_other_ranks[3] == "–", "a bench of other networks' ranks is not the paper's"
    assert "2 cores · 2 threads" in title and "1 core" in composed_title and "2 cores" in composed_title
    assert measured["ranks of 18 layers, width 64 (ResNet-18)"][3] == "0.49 s an epoch (P 4.3)"
    of_profiles = [words[3] for what, words in measured.items() if what.startswith("profile, ")]
    assert of_profiles == ["3.98 s (P 4.3)", "–"], "the paper's is of ResNet-18"
    got = measured["checkpoint; ResNet-18, width 64, epochs of 50,000 images"][1:3]
    assert got == ["0.023 %", "an epoch"]
    claimed = judge(collection, benches, [CLAIMS["rank-share"]])[0].reduced
    row = table.blocks[last].rows[1]
    got = (row[0].text, row[2].value, row[2].mark, row[2].runs)
    assert got == ("ranks", claimed.ours, "composed", tuple(claimed.runs))
    assert composed["profiling"][3] == "0.16 % (P 4.3)" and table.notes[0].startswith("composed of")
    known = [cell for _, row in table.rows for cell in row if cell.text != "–"]
    assert [cell.text for cell in known if cell.value is None] == [], "what is known can be sorted by"
    on_cpus = [bench for bench in benches if "NVIDIA" not in bench.facts["hardware"]]
    firsts = [table_of(collection, "paper", some).blocks[-1].rows[0][0].text for some in (on_cpus, benches)]
    assert firsts == ["no run", "ranks of 18 layers, width 64 (ResNet-18)"], (
        "a CPU's benches are not of the paper's scale, a GPU's are"
    )


@pytest.mark.parametrize(
    "row",
    [
        {"part": "train"},
        {"part": "data"},
        {"part": "data", "share": "a lot"},
        {"part": "data", "share": float("nan")},
    ],
)
def test_a_bench_that_lacks_a_share_has_none(row):
    rows = [{"seconds": 1.0, "per": "epoch", "width": 16} | row]
    bench = Bench("overhead-x.json", {"hardware": "a CPU, 2 cores"}, rows)
    shown = [cells[2].text for _, cells in table_of(found(), benches=[bench], times=TIMES).rows]
    assert shown == (["–"] if row["part"] == "data" else [])
