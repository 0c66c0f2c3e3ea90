"""A record run again: the same bits where promised, every difference named, the original left alone."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cuttlefish.errors import CuttlefishError
from cuttlefish.record.find import find_record
from cuttlefish.record.record import read_record
from cuttlefish.replay import EXIT_DIFFERS, main, replayed_config
from cuttlefish.worker import read_resolved, run_config
from tests.helpers.many_records import made_up_record, write_run
from tests.helpers.runs import little_config

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original") / "run"
    return folder, run_config(little_config(folder, "cuttlefish", trainer__threads=1))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edited(original, here, **changes):
    """A copy of the record alone, as in results/records, with changes."""
    folder, record = original
    (here / "copy").mkdir(exist_ok=True)
    path = here / "copy" / "record.json"
    path.write_text(json.dumps(vars(record) | changes))
    return path


def test_the_same_bits_again_in_a_folder_of_its_own(original, here, capsys):
    folder, record = original
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main([f"replay={folder}"]) == 0
    told = capsys.readouterr().out
    assert "expected: the same bits" in told and "OUTSIDE" not in told and "differs" not in told
    repeated = read_record(here / "runs" / "replay" / f"{record.run_key}-1")
    assert repeated.started >= record.started and repeated.loss_final == record.loss_final
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main([f"replay={folder / 'record.json'}"]) == 0
    found = sorted(path.name for path in (here / "runs" / "replay").iterdir())
    assert found == [f"{record.run_key}-1", f"{record.run_key}-2"]


def test_other_threads_are_told_and_held_to_no_bit(original, here, capsys):
    path = edited(original, here, threads=2, loss_final=original[1].loss_final * (1 + 1e-6))
    assert main([f"replay={path}", "logger.console=false"]) == 0
    told = capsys.readouterr().out
    assert "expected: within tolerance" in told and "differs: threads 2 -> 1" in told
    path = edited(original, here, loss_final=original[1].loss_final * (1 + 1e-6))
    assert main([f"replay={path}", "logger.console=false"]) == EXIT_DIFFERS, (
        "with as many, the last bit counts"
    )


def test_what_differs_is_named_and_fails(original, here, capsys):
    path = edited(original, here, accuracy_final=12.5, packages={"torch": "1.0"}, git_commit="old")
    shutil.copy(original[0] / "epochs.jsonl", path.parent)
    assert main([f"replay={path}", "logger.console=false"]) == EXIT_DIFFERS
    told = capsys.readouterr().out
    row = next(line for line in told.splitlines() if line.strip().startswith("accuracy_final"))
    assert "12.5" in row and "1.5 points" in row and "OUTSIDE" in row
    assert "expected: within tolerance" in told
    assert "differs: torch 1.0 -> " in told
    assert "differs: git commit old -> " in told


def test_an_epoch_that_differs_is_found(original, here, capsys):
    path = edited(original, here)
    rows = [json.loads(line) for line in (original[0] / "epochs.jsonl").read_text().splitlines()]
    rows[1]["train_loss"] += 1e-9
    (path.parent / "epochs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert main([f"replay={path}"]) == EXIT_DIFFERS
    assert "epochs.jsonl differs from epoch 2 on" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes, words, sentence",
    [
        ({}, ["seed=3"], "seed=3: a replay runs what was recorded"),
        ({}, ["method.k=2"], "method.k=2: a replay runs what was recorded"),
        ({}, ["run_dir=x"], "run_dir=x: a replay runs"),
        ({}, ["debug"], "debug: a replay runs"),
        ({}, ["replay=x"], "one record at a time"),
        ({"status": "failed", "error": "x"}, [], "that run has not finished"),
        ({"accuracy_final": "high"}, [], "accuracy_final is 'high'"),
        ({"data_digest": "0" * 64}, [], "the data here is not that of run"),
        ({"run_key": "0" * 12}, [], "makes another run .* since commit"),
        ({"config": None}, [], "has no config"),
        ({}, ["trainer.device=[cpu"], "cannot read 'trainer.device="),
    ],
)
def test_refusals_come_before_training(original, here, capsys, changes, words, sentence):
    import re

    path = edited(original, here, **changes)
    assert main([f"replay={path}", *words]) == 2
    told = capsys.readouterr()
    assert re.search(sentence, told.err)
    assert told.err.startswith("cuttlefish: ")
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert not (here / "runs").exists()


def test_folders_of_the_other_machine_are_this_one_s(here):
    record = made_up_record(1)
    record.config.update({"runs_root": ".../runs", "method": {"name": "full_rank"}})
    record.config["data"] = record.config["data"] | {"root": ".../data"}
    config = replayed_config(here / "record.json", record, ["data.root=there", "logger.wandb.mode=disabled"])
    found = (config.runs_root, config.data.root, config.logger.wandb.mode, config.trainer.threads)
    assert found == ("runs", "there", "disabled", 1)
    assert replayed_config(here / "record.json", record, []).data.root is None
    record.config["sink"] = {"console": False}  # as it was called in earlier versions
    assert replayed_config(here / "record.json", record, []).logger.console is False
    (here / "resolved.yaml").write_text(json.dumps(record.config))
    assert read_resolved(here / "resolved.yaml").logger.console is False
    with pytest.raises(
        CuttlefishError, match="started from the state of run abc, which only its run folder can name"
    ):
        replayed_config(
            here / "record.json",
            replace(record, config=record.config | {"fork_from": ".../x"}, forked_from="abc"),
            [],
        )


def test_records_are_found_by_what_people_type(here):
    first = write_run(here / "results" / "records" / "a", made_up_record(1))
    write_run(here / "runs" / "a", made_up_record(1))
    assert find_record("000000000001") == Path("results/records/a/record.json")
    assert find_record(str(first)) == find_record(str(first / "record.json")) == first / "record.json"
    (here / "runs" / "b").mkdir()
    (here / "runs" / "b" / "record.json").write_text("{")
    for word, sentence in (
        ("0" * 12, "no record under results/records or runs has this run key"),
        ("../x", "neither a record, nor a folder"),
    ):
        with pytest.raises(CuttlefishError, match=sentence):
            find_record(word)
    write_run(here / "runs" / "c", made_up_record(1, started="2026-01-02T00:00:00+00:00"))
    with pytest.raises(CuttlefishError, match="several runs have this key; give one of .*runs/c"):
        find_record("000000000001")


def test_the_front_door_hands_it_on(original, here, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT))
    import run

    monkeypatch.setattr(sys, "argv", ["run.py", "replay=nowhere"])
    assert run.main() == 2
    assert (
        capsys.readouterr().err == "cuttlefish: nowhere: neither a record, nor a folder with one, "
        "nor a run key of 12 hexadecimal digits\n"
    )
