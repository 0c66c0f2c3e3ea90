"""5,000 records become all tables in seconds."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from synthetic_records import record

from cuttlefish.plan.runs import planned_runs
from cuttlefish.report.evidence import load_evidence
from cuttlefish.report.table_files import write_tables
from cuttlefish.report.tables import all_tables
from scripts.tables import read_claims, seeds_of, tables_spec

ROOT = Path(__file__).resolve().parents[2]
SEEDS, RECORDS = 230, 5000


@pytest.mark.slow
def test_5000_records_collate_in_seconds(tmp_path, capsys):
    spec = tables_spec()
    plan = planned_runs(spec, ["table1", "table5"], "reduced", range(SEEDS), ROOT, tmp_path / "cache")  # composes
    for run in {run.run_key: run for run in plan}.values():
        folder = tmp_path / "records" / run.run_key
        folder.mkdir(parents=True)
        made = record("pufferfish", run.seed, run_key=run.run_key, model=run.model, accuracy_final=70 + run.seed / 100)
        (folder / "record.json").write_text(json.dumps(made))
    started = {"all": time.process_time()}
    collection = load_evidence(tmp_path / "records")
    started["plan"] = time.process_time()
    planned = planned_runs(spec, ["table1", "table5"], "reduced", seeds_of(collection), ROOT, tmp_path / "cache")
    started["tables"] = time.process_time()
    tables, left_out = all_tables(spec, planned, collection, read_claims(), "reduced")
    write_tables(tmp_path / "tables", tables, left_out, tmp_path)
    ended = time.process_time()
    assert len(collection.runs) >= RECORDS and left_out == []
    assert {row[1].text for _, row in tables[0].rows} == {str(SEEDS)}
    read, planning, collating = started["plan"] - started["all"], started["tables"] - started["plan"], ended - started["tables"]
    with capsys.disabled():
        print(f"\n{len(collection.runs)} records: read {read:.1f} s, planned {planning:.1f} s, tables {collating:.1f} s of CPU time")
    assert ended - started["all"] < 20
