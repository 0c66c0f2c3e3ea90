"""Importing runs as evidence."""

import json
import os
from dataclasses import replace

import pytest

from cuttlefish.engine.step import StepRunner
from cuttlefish.errors import CuttlefishError
from cuttlefish.evidence.records import load_evidence
from cuttlefish.record.record import read_record, write_record
from cuttlefish.worker import run_config
from scripts.records import draw, draw_all, import_run, main
from tests.helpers.runs import little_config
from tests.helpers.synthetic_records import put, rank_rows
from tests.helpers.synthetic_records import record as synthetic


def test_import(tmp_path):
    run = tmp_path / "run"
    record = run_config(little_config(run, "cuttlefish", recipe__epochs=3))
    with (run / "log.txt").open("a") as log:
        log.write(f"something of {run}\n")
    target = import_run(run, tmp_path / "records")
    assert target == tmp_path / "records" / "resnet18-synthetic-cuttlefish" / "seed0-run"
    assert read_record(target) == record
    assert {path.name for path in target.iterdir()} == {"record.json", "epochs.jsonl", "ranks.csv", "log.txt"}
    assert str(tmp_path) not in (target / "log.txt").read_text()
    assert import_run(run, tmp_path / "records") == target, "again is harmless"
    figures = draw(target, tmp_path / "records", tmp_path / "figures")
    assert figures == tmp_path / "figures" / "resnet18-synthetic-cuttlefish" / "seed0-run"
    assert (figures / "rank_curves.svg").exists() and not (target / "plots").exists()


def test_an_imported_record_names_no_folder_of_the_machine(tmp_path):
    """One that was written before the run itself saw to that, or by hand."""
    run = tmp_path / "run"
    record = run_config(little_config(run, recipe__epochs=1, recipe__schedule__warmup_epochs=0))
    told = f"cannot write {run}/log.txt"
    (run / "record.json").write_text(
        json.dumps(vars(record) | {"status": "failed", "error": told, "extra": {"loggers_dropped": [told]}})
    )
    imported = read_record(import_run(run, tmp_path / "records"))
    assert imported.error == "cannot write .../log.txt" == imported.extra["loggers_dropped"][0]
    assert replace(imported, error=None) == replace(record, status="failed", extra=imported.extra)


def test_refusals(tmp_path):
    run = tmp_path / "run"
    record = run_config(little_config(run, recipe__epochs=2, recipe__schedule__warmup_epochs=0))
    (run / "record.json").write_text(json.dumps(vars(record) | {"accuracy_final": "high"}))
    with pytest.raises(CuttlefishError, match="not imported: .*accuracy_final"):
        import_run(run, tmp_path / "records")


def test_a_committed_record_is_not_replaced(tmp_path):
    records = tmp_path / "records"
    write_record(tmp_path / "a", synthetic(run_key="0123456789ab"))
    target = import_run(tmp_path / "a", records)
    before = (target / "record.json").read_bytes()
    for folder in (tmp_path / "a", tmp_path / "b"):  # a folder of the same name, and of another
        write_record(folder, synthetic(run_key="0123456789ab", accuracy_final=79.0))
        with pytest.raises(
            CuttlefishError, match="has another outcome of run 0123456789ab, started 2026-01-01"
        ):
            import_run(folder, records)
    assert (target / "record.json").read_bytes() == before and len(list(records.rglob("record.json"))) == 1


@pytest.mark.parametrize("name", ["epochs.jsonl", "log.txt"])
def test_an_odd_file_beside_a_record_is_told_and_the_others_are_imported(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr("scripts.records.import_run", lambda run: import_run(run, tmp_path / "records"))
    for folder, key in (("a", "a" * 12), ("b", "b" * 12), ("c", "c" * 12)):
        write_record(tmp_path / folder, synthetic(run_key=key))
    os.mkfifo(tmp_path / "a" / name)
    (tmp_path / "b" / name).mkdir()
    assert main(["import", *(str(tmp_path / folder) for folder in "abc")]) == 2
    told = capsys.readouterr()
    assert told.err.count("\n") == 2 and "it is no regular file" in told.err and "Is a directory" in told.err
    assert told.out.count("\n") == 1 and "Traceback" not in told.err


def test_repeats_of_a_key_lie_side_by_side(tmp_path):
    run, records = tmp_path / "run", tmp_path / "records"
    run.mkdir()
    starts = [
        ("2026-01-01T00:00:00+00:00", "a CPU"),
        ("2026-01-02T00:00:00+00:00", "a GPU"),
        ("2026-01-03T00:00:00+00:00", "a GPU"),
    ]
    for started, device in starts * 2:  # again is harmless
        write_record(run, synthetic(run_key="0123456789ab", started=started, device=device))
        target = import_run(run, records)
        assert target.name.startswith("seed0-run") and read_record(target).started == started
    found = load_evidence(records)
    assert sorted((one.record.started, one.record.device) for one in found.runs) == starts
    assert found.left_out == []


def test_a_run_stopped_before_its_first_epoch_is_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(StepRunner, "step", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_config(little_config(tmp_path / "run"))
    target = import_run(tmp_path / "run", tmp_path / "records")
    assert draw(target, tmp_path / "records", tmp_path / "figures") is None
    assert (target / "record.json").exists()


@pytest.mark.parametrize(
    "name, content",
    [
        ("profile.json", "{"),
        ("profile.json", "[1]"),
        ("profile.json", '{"stacks": [{}]}'),
        ("profile.json", "\x00"),
        ("record.json", "{"),
    ],
)
def test_a_damaged_file_is_told_and_the_others_are_drawn(tmp_path, capsys, name, content):
    rows = rank_rows(lambda layer, epoch: 1 / (1 + epoch))
    damaged, sound = (put(tmp_path, "cuttlefish", seed, rows=rows).run_key for seed in (0, 1))
    (tmp_path / "records" / damaged / name).write_text(content)
    assert draw_all(tmp_path / "records", tmp_path / "figures") == 1
    told = capsys.readouterr().err
    assert f"{damaged}: not drawn: damaged (" in told and told.count("\n") == 1
    assert [path.name for path in (tmp_path / "figures").iterdir()] == [sound]
    assert not list((tmp_path / "records").rglob("plots"))


def test_a_run_that_cannot_be_imported_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("scripts.records.import_run", lambda run: import_run(run, tmp_path / "records"))
    write_record(tmp_path / "b", synthetic(experiment_name="x"))
    (tmp_path / "a").mkdir()
    assert main(["import", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    told = capsys.readouterr()
    assert told.out == f"{tmp_path / 'records' / 'x' / 'seed0-b'}\n"
    assert told.err.count("\n") == 1
    assert "There is no record" in told.err
    assert main(["import"]) == 2 and "import which runs?" in capsys.readouterr().err
