"""One process a run, and a dead owner's lock is taken over."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cuttlefish.engine import lock as lock_module
from cuttlefish.engine.lock import LOCK, RunLock
from cuttlefish.errors import Busy, CuttlefishError
from cuttlefish.worker import attend, run_config
from tests.runs import little_config

ROOT = Path(__file__).resolve().parents[2]
OWNER = """
import sys, time
from pathlib import Path
from cuttlefish.engine.lock import RunLock
with RunLock(Path(sys.argv[1]), lambda: 12.5):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path):
    """Another process that holds the lock of tmp_path."""
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_is_told_who_has_it(owner, tmp_path):
    with pytest.raises(Busy, match=f"is being run by process {owner.pid}: wait for it, or stop it first"), RunLock(tmp_path, float):
        pass
    with pytest.raises(Busy):
        run_config(little_config(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_a_killed_owner_s_lock_is_taken_over_with_its_time(owner, tmp_path):
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert (tmp_path / LOCK).exists()
    with RunLock(tmp_path, float) as lock:
        assert lock.lost_seconds == 12.5
    assert not (tmp_path / LOCK).exists()


def test_lost_work_is_charged_to_the_wall_clock_only(owner, tmp_path):
    owner.kill()
    owner.wait()
    record = run_config(little_config(tmp_path, recipe__epochs=1, recipe__schedule__warmup_epochs=0))
    assert record["wall_seconds"] > 12.5 > record["compute_seconds"]


def foreign(folder, age):
    """A lock of another machine, over a file system that does not carry kernel locks."""
    (folder / LOCK).write_text(json.dumps({"pid": 1, "machine": "another", "wall_seconds": 3.0}))
    os.utime(folder / LOCK, (time.time() - age,) * 2)


def test_another_machine_s_lock_counts_while_it_shows_life(tmp_path, monkeypatch):
    foreign(tmp_path, age=20)
    monkeypatch.setattr(lock_module.time, "sleep", lambda seconds: foreign(tmp_path, age=0))
    with pytest.raises(Busy, match="on another machine, which has just shown a sign of life"), RunLock(tmp_path, float):
        pass


def test_a_lost_machine_s_lock_is_outwaited(tmp_path, caplog):
    """A job that is queued again at once must not find itself too early and give up."""
    foreign(tmp_path, age=lock_module.DEAD_SECONDS - 0.3)
    began = time.monotonic()
    with RunLock(tmp_path, float, beat_seconds=0.1) as lock:
        assert lock.lost_seconds == 3.0 and time.monotonic() - began >= 0.2
    assert "waiting 0 s for a sign of its life" in caplog.text
    foreign(tmp_path, age=lock_module.DEAD_SECONDS + 5)
    caplog.clear()
    with RunLock(tmp_path, float):
        assert not caplog.text


def test_a_lock_that_its_owner_elsewhere_gives_up_is_free(tmp_path, monkeypatch):
    foreign(tmp_path, age=20)
    monkeypatch.setattr(lock_module.time, "sleep", lambda seconds: (tmp_path / LOCK).unlink())
    with RunLock(tmp_path, float):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_the_heart_beats(tmp_path):
    wall = itertools.count()
    with RunLock(tmp_path, lambda: float(next(wall)), beat_seconds=0.02):
        end = time.monotonic() + 30
        while (beat := json.loads((tmp_path / LOCK).read_text()))["wall_seconds"] < 2 and time.monotonic() < end:
            time.sleep(0.01)
    assert beat["wall_seconds"] >= 2 and beat["pid"] == os.getpid()
    assert not any(thread.name == "heartbeat" for thread in threading.enumerate())


def test_a_torn_lock_file_is_no_obstacle(tmp_path):
    (tmp_path / LOCK).write_text('{"pid": 1, "mach')
    with RunLock(tmp_path, float) as lock:
        assert lock.lost_seconds == 0


def test_of_many_at_once_exactly_one_gets_it(tmp_path):
    got, refused, start = [], [], threading.Barrier(8)

    def want():
        start.wait()
        try:
            with RunLock(tmp_path, float):
                got.append(None)
                end = time.monotonic() + 30
                while len(refused) < 7 and time.monotonic() < end:
                    time.sleep(0.01)
        except Busy:
            refused.append(None)

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)


def test_the_lock_is_free_after_a_failure(tmp_path):
    for _ in range(2):
        with pytest.raises(CuttlefishError, match="the loss became"):
            run_config(little_config(tmp_path, recipe__schedule__peak_lr=1e30))
    assert not (tmp_path / LOCK).exists()


def test_who_waited_for_the_lock_does_not_train_again(tmp_path, monkeypatch):
    """Both saw an unfinished run; the other one finishes it while this one is still building its session."""
    import cuttlefish.worker as worker

    session = worker.Session

    def slow(*arguments):
        monkeypatch.setattr(worker, "Session", session)
        run_config(little_config(tmp_path))
        return session(*arguments)

    monkeypatch.setattr(worker, "Session", slow)
    outcome, record = attend(little_config(tmp_path))
    assert outcome == "skipped" and record["status"] == "finished"
    assert attend(little_config(tmp_path))[0] == "skipped"
