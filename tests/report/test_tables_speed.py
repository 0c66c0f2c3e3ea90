"""5,000 records become every table and the whole report in seconds, by the commands that people type."""

import json
import os
import shutil
from pathlib import Path

import pytest

from cuttlefish.planning.runs import planned_runs
from cuttlefish.planning.spec import read_spec
from cuttlefish.report.paper import PAPER
from scripts import report, tables
from tests.helpers.synthetic_records import record

ROOT = Path(__file__).resolve().parents[2]
SEEDS, RECORDS = 230, 5000


def cpu_seconds() -> float:
    """Of this process and those that it started: the wall clock would measure what else runs here."""
    return sum(os.times()[:4])


def results_of(folder: Path, cache: Path) -> Path:
    """A checkout's results with a record for every run that tables 1 and 5 have at reduced scale."""
    for name in ("conf", "cuttlefish", "baselines", "run.py"):
        (folder / name).symlink_to(ROOT / name)
    made = shutil.ignore_patterns("records", "report", "tables", "figures", "torture")
    shutil.copytree(ROOT / "results", folder / "results", ignore=made)
    spec = read_spec(PAPER / "tables.yaml")
    planned_runs(spec, spec.tables, "reduced", [0], ROOT, cache)  # composes, as the first command does
    plan = planned_runs(spec, ["table1", "table5"], "reduced", range(SEEDS), ROOT, cache)
    for run in {run.run_key: run for run in plan}.values():
        target = folder / "results" / "records" / run.run_key
        target.mkdir(parents=True)
        of_run = {"run_key": run.run_key, "model": run.model, "accuracy_final": 70 + run.seed / 100}
        made = record("pufferfish", run.seed, **of_run)
        (target / "record.json").write_text(json.dumps(vars(made)))
    return folder / "results"


@pytest.mark.slow
def test_5000_records_become_tables_and_report_in_seconds(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CUTTLEFISH_CACHE", str(tmp_path / "cache"))
    results = results_of(tmp_path, tmp_path / "cache")
    started = cpu_seconds()
    assert tables.main(["--collate-only", "--root", str(tmp_path)]) == 0
    collated = cpu_seconds()
    assert report.main(["--results", str(results)]) == 0
    ended = cpu_seconds()
    pages = len(list((results / "report" / "runs").iterdir()))
    with capsys.disabled():
        print(
            f"\n{pages} records: tables {collated - started:.1f} s, "
            f"report {ended - collated:.1f} s of CPU time"
        )
    assert pages >= RECORDS and f" {SEEDS} " in (results / "tables" / "reduced" / "table1.md").read_text()
    assert ended - started < 20
