"""Planned runs against what the front door would do, and against the committed records."""

from dataclasses import replace
from pathlib import Path

import pytest

from cuttlefish.config.compose import compose_config
from cuttlefish.engine.run import resolve_run
from cuttlefish.errors import CuttlefishError
from cuttlefish.evidence.records import load_evidence
from cuttlefish.planning.composition import published_digest
from cuttlefish.planning.runs import planned_runs
from cuttlefish.planning.spec import Spec
from cuttlefish.tasks.registry import data_sets

ROOT = Path(__file__).resolve().parents[2]
TABLES = ["table1", "table2", "table3", "table4", "figure1", "table5"]
KINDS = [kind for kind, item in data_sets().items() if item.files]


def only(spec: Spec, table: str, rows: list[str], sweep=None) -> Spec:
    """One table with these rows at its scales; the others stay, for sizes to be matched."""
    own = spec.tables[table]
    kept = [row if row.name in rows else replace(row, scales=[]) for row in own.rows]
    sweep = sweep or {"model": ["resnet18"], "data": ["cifar10"]}
    return replace(spec, tables={table: replace(own, rows=kept, sweep=sweep)})


def test_every_committed_reduced_record_is_a_planned_run(spec, cache):
    """Keys are made anew from conf/: were one to change, its record would be lost."""
    planned = {run.run_key for run in planned_runs(spec, TABLES, "reduced", range(5), ROOT, cache)}
    committed = committed_methods()
    assert len(committed) >= 24 and committed.keys() <= planned


def committed_methods():
    """Run key -> method of the committed records at reduced scale."""
    records = [run.record for run in load_evidence(ROOT / "results" / "records" / "reduced").finished]
    return {record.run_key: record.method for record in records}


def test_the_committed_reduced_records_are_found_by_key(spec, cache):
    methods, committed = ["full_rank", "cuttlefish"], committed_methods()
    runs = planned_runs(only(spec, "table1", methods), ["table1"], "reduced", [0], ROOT, cache)
    assert [run.row for run in runs] == methods
    assert [committed[run.run_key] for run in runs] == methods


def test_a_row_at_reduced_scale_is_the_reduced_cell(spec, cache):
    """As typed by hand: experiment=reduced/cell, method and preset, and the key of the run to match."""
    by_hand = "experiment=reduced/cell model=resnet18 method=imp preset=equal_budget".split()
    by_hand += ["method.match=53718b811d16"]
    run = planned_runs(only(spec, "table1", ["imp"]), ["table1"], "reduced", [0], ROOT, cache)[0]
    assert (run.waits_for, run.waits_for_label, run.epochs) == ("53718b811d16", "Cuttlefish", 30)
    digest = published_digest(compose_config(ROOT / "conf", by_hand).data)
    assert run.run_key == key_of(by_hand, digest)


def test_words_run_what_was_planned_and_seeds_differ(spec, cache):
    small = only(spec, "table1", ["pufferfish", "si_fd"])
    runs = planned_runs(small, ["table1"], "smoke", [0, 7], ROOT, cache)
    assert len({run.run_key for run in runs}) == len(runs) == 4 and {run.waits_for for run in runs} == {None}
    config = compose_config(ROOT / "conf", runs[1].words)
    assert config.seed == 7 and config.scale == "smoke"
    assert key_of(list(runs[1].words), published_digest(config.data)) == runs[1].run_key
    assert runs[1].folder == f"runs/debug/{runs[1].run_key}"


def test_matched_runs_have_a_partner_of_the_same_seed(spec, cache):
    matched = only(spec, "table1", ["cuttlefish", "si_fd"])
    runs = planned_runs(matched, ["table1"], "reduced", [0, 1], ROOT, cache)
    found = [(run.row, run.seed) for run in runs]
    assert found == [("cuttlefish", 0), ("cuttlefish", 1), ("si_fd", 0), ("si_fd", 1)]
    assert [run.waits_for for run in runs[2:]] == [run.run_key for run in runs[:2]]
    assert runs[3].words[-1] == f"method.match='{runs[1].run_key}'"


def test_published_rows_take_the_methods_own_epochs(spec, cache):
    published = only(spec, "table1", ["lc_reference", "imp_reference", "grasp_reference"])
    runs = planned_runs(published, ["table1"], "paper", [0], ROOT, cache)
    found = {run.row: run.epochs for run in runs}
    assert found == {"lc_reference": 1135, "imp_reference": None, "grasp_reference": 160}
    assert {run.kinds for run in runs} == {("published",)}
    assert {run.waits_for_label for run in runs} == {"Cuttlefish (as the public code)"}


def test_a_row_that_does_not_compose_is_named(spec, cache):
    broken = only(spec, "table1", ["xnor"], {"model": ["resnet18"], "data": ["cifar11"]})
    with pytest.raises(Exception, match="cifar11") as caught:
        planned_runs(broken, ["table1"], "paper", [0], ROOT, cache)
    assert isinstance(caught.value, CuttlefishError)
    assert "table1, row xnor at scale paper" in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_the_digest_needs_no_data(kind, monkeypatch):
    monkeypatch.setenv("CUTTLEFISH_DATA", "/nonexistent")
    config = compose_config(ROOT / "conf", [f"data={kind}"]).data
    assert len(published_digest(config)) == 64
    other = next(other for other in KINDS if other != kind)
    assert published_digest(config) != published_digest(replace(config, kind=other))


def test_every_table_with_runs_of_its_own_is_an_experiment(spec):
    files = {path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")}
    assert files == {name for name, table in spec.tables.items() if any(row.of is None for row in table.rows)}


def key_of(words: list[str], digest: str) -> str:
    """The front door's own key, where the data need not be there."""
    from unittest.mock import patch

    with patch("cuttlefish.engine.run.data_digest", lambda config: digest):
        return resolve_run(compose_config(ROOT / "conf", words)).key
