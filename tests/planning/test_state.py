import json
import subprocess
import sys

import pytest

from cuttlefish.planning.state import Known, State, state_of, state_words
from tests.helpers.planned_runs import wanted as planned


def wanted(row="r", seed=3, **changes):
    own = {"table": "t", "model": "m", "data": "d", "run_key": "k" * 12, "folder": "runs/x/k", "epochs": 1}
    return planned(row, seed, **(own | changes))


@pytest.fixture
def known(tmp_path):
    return Known({}, tmp_path)


def put(root, folder, **record):
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / "record.json").write_text(json.dumps({"schema": 1, **record}))


def test_an_unknown_run_is_missing_or_cannot_be_run(known):
    assert state_of(wanted(), known) == "missing"
    assert state_of(wanted(data_there=False), known) == "data absent"


def test_a_record_counts_by_key_and_precision(known):
    done = Known({("k" * 12, "fp32"): None}, known.root)
    assert state_of(wanted(data_there=False), done) == "finished"
    assert state_of(wanted(precision="bf16"), done) == "missing"


@pytest.mark.parametrize(
    "record, state",
    [
        ({"run_key": "k" * 12, "status": "finished"}, "finished"),
        ({"run_key": "k" * 12, "status": "failed"}, "failed"),
        ({"run_key": "k" * 12, "status": "interrupted"}, "interrupted"),
        ({"run_key": "other", "status": "finished"}, "missing"),
    ],
)
def test_what_the_run_folder_says(known, record, state):
    put(known.root, "runs/x/k", **record)
    assert state_of(wanted(), known) == state


def test_a_folder_without_a_whole_record_was_interrupted(known):
    (known.root / "runs/x/k").mkdir(parents=True)
    assert state_of(wanted(), known) == "missing", "an empty folder holds no work"
    (known.root / "runs/x/k/resolved.yaml").write_text("a: 1")
    assert state_of(wanted(), known) == "interrupted"
    (known.root / "runs/x/k/record.json").write_text("{")
    assert state_of(wanted(), known) == "interrupted"


def test_a_held_lock_is_a_running_run_and_a_left_one_is_not(known):
    folder = known.root / "runs/x/k"
    folder.mkdir(parents=True)
    lock = folder / "run.lock"
    lock.write_text("{}")
    assert state_of(wanted(), known) == "interrupted"
    code = (
        f"import fcntl,sys; f=open({str(lock)!r},'r+'); fcntl.flock(f, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        assert state_of(wanted(), known) == "running"
        holder.stdin.close()
    assert state_of(wanted(), known) == "interrupted"


def test_a_matched_run_waits_for_a_finished_partner(known):
    run = wanted(waits_for="p" * 12, waits_for_label="Cuttlefish", waits_in="runs/x/p")
    assert state_words(run, state_of(run, known)) == "waits for Cuttlefish, seed 3"
    assert state_of(run, Known({("p" * 12, "bf16"): None}, known.root)) == "missing"
    put(known.root, "runs/x/p", run_key="p" * 12, status="interrupted")
    assert state_of(run, known) is State.WAITS
    put(known.root, "runs/x/p", run_key="p" * 12, status="finished")
    assert state_of(run, known) == "missing"
