"""One process a run, and a dead owner's lock is taken over."""

import errno
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from cuttlefish import worker as worker_module
from cuttlefish.engine.epoch import EpochRunner
from cuttlefish.engine.step import StepRunner
from cuttlefish.engine.trainer import Trainer
from cuttlefish.errors import EXIT_BUSY, Busy, CuttlefishError, TakenOver, exit_code
from cuttlefish.methods.cuttlefish.method import CuttlefishMethod
from cuttlefish.process import lock as lock_module
from cuttlefish.process import machine as machine_module
from cuttlefish.process.lock import LOCK, RunLock
from cuttlefish.process.machine import machine_id
from cuttlefish.process.signals import StopSignals
from cuttlefish.worker import run_config, run_or_skip
from tests.helpers.runs import little_config
from tests.helpers.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
OWNER = """
import sys, time
from pathlib import Path
from cuttlefish.process.lock import RunLock
with RunLock(Path(sys.argv[1]), lambda: 12.5):
    print("locked", flush=True)
    time.sleep(60)
"""
THEIRS = json.dumps({"pid": 1, "machine": "another", "nonce": "theirs"})


@pytest.fixture
def owner(tmp_path):
    """Another process that holds the lock of tmp_path."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()


def check_refused(folder, words):
    with pytest.raises(Busy, match=words), RunLock(folder, float):
        pass


def test_the_second_is_told_who_has_it(owner, tmp_path):
    check_refused(tmp_path, f"is being run by process {owner.pid}: wait for it, or stop it first")
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
    assert record.wall_seconds > 12.5 > record.compute_seconds


def foreign(folder, age):
    """A lock of another machine, over a file system that does not carry kernel locks."""
    (folder / LOCK).write_text(json.dumps({"pid": 1, "machine": "another", "wall_seconds": 3.0}))
    os.utime(folder / LOCK, (time.time() - age,) * 2)


def test_another_machine_s_lock_counts_while_it_shows_life(tmp_path, monkeypatch):
    foreign(tmp_path, age=20)
    monkeypatch.setattr(lock_module.time, "sleep", lambda seconds: foreign(tmp_path, age=0))
    check_refused(tmp_path, "on another machine, which has just shown a sign of life")


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


def test_a_clock_that_is_ahead_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "DEAD_SECONDS", 0.4)
    foreign(tmp_path, age=-3600)
    began = time.monotonic()
    with RunLock(tmp_path, float, beat_seconds=0.1) as lock:
        assert lock.lost_seconds == 3.0 and 0.4 <= time.monotonic() - began < 30


def test_a_disk_that_takes_a_part_of_a_beat_is_full_and_not_another_s(tmp_path, monkeypatch):
    pwrite = os.pwrite
    with monkeypatch.context() as patch:
        patch.setattr(lock_module.os, "pwrite", lambda handle, data, at: pwrite(handle, data[:40], at))
        with pytest.raises(CuttlefishError, match="cannot write to the run folder .*: No space left") as told:
            RunLock(tmp_path, float).__enter__()
    assert not isinstance(told.value, Busy)
    with StopSignals() as stop, RunLock(tmp_path, float, beat_seconds=0.02):
        (tmp_path / LOCK).write_text('{"pid": 1, "mach')
        time.sleep(0.2)
        assert stop.requested is None


def test_a_disk_that_dies_hides_nothing(tmp_path, monkeypatch, caplog):
    """Neither what ended the run nor, after one that went well, its end."""

    def dead(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    for cause in (ValueError("the loss became NaN"), None):
        with monkeypatch.context() as patch:
            lock = RunLock(tmp_path, float)
            try:
                with lock:
                    patch.setattr(Path, "open", dead)
                    if cause:
                        raise cause
            except Exception as error:
                assert error is cause
        assert "run.lock is left: Input/output error" in caplog.text
        caplog.clear()


def test_a_lock_that_its_owner_elsewhere_gives_up_is_free(tmp_path, monkeypatch):
    foreign(tmp_path, age=20)
    monkeypatch.setattr(lock_module.time, "sleep", lambda seconds: (tmp_path / LOCK).unlink())
    with RunLock(tmp_path, float):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_a_file_system_without_locks_has_the_heartbeat(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(machine_module.fcntl, "flock", refuse)
    with RunLock(tmp_path, float, beat_seconds=0.05):
        check_refused(tmp_path, "a sign of life")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def machines(monkeypatch):
    """Each thread is a machine of its own, and kernel locks do not reach from one to another."""
    monkeypatch.setattr(machine_module.fcntl, "flock", lambda *_: None)
    monkeypatch.setattr(lock_module, "SETTLE_SECONDS", 0.3)
    monkeypatch.setattr(lock_module, "machine_id", lambda: threading.current_thread().name)
    beat = RunLock._beat
    monkeypatch.setattr(
        RunLock, "_beat", lambda *arguments: time.sleep(0.1) or beat(*arguments)
    )  # all have looked before one has written


def at_once(folder, count=4):
    """How many got the lock of those that wanted it together, and how many were refused."""
    got, refused, start = [], [], threading.Barrier(count)

    def want():
        start.wait()
        try:
            with RunLock(folder, float, beat_seconds=0.05):
                got.append(None)
                wait_for(lambda: len(refused) == count - 1, 30)
        except Busy:
            refused.append(None)

    threads = [threading.Thread(target=want, name=f"machine {number}") for number in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return len(got), len(refused)


def test_of_many_machines_without_common_locks_one_starts_a_run(tmp_path, machines):
    assert at_once(tmp_path) == (1, 3)
    assert not list(tmp_path.iterdir())


def test_of_many_machines_without_common_locks_one_takes_a_dead_owner_s(tmp_path, machines):
    foreign(tmp_path, age=lock_module.DEAD_SECONDS + 5)
    assert at_once(tmp_path) == (1, 3)


def until_stopped(stop):
    wait_for(lambda: stop.requested, 30)
    assert stop.requested == "SIGTERM"


def test_who_wakes_after_a_take_over_stops_and_leaves_the_lock(tmp_path, caplog):
    """Suspended for so long that another machine took over; where no signal is handled, it still beats no
    more."""
    with StopSignals() as stop, RunLock(tmp_path, float, beat_seconds=0.02):
        (tmp_path / LOCK).write_text(THEIRS)
        until_stopped(stop)
        time.sleep(0.1)
    assert (tmp_path / LOCK).read_text() == THEIRS
    assert [record.getMessage().partition(" was ")[2] for record in caplog.records] == [
        "taken over by another process while this one showed no sign of life: this one stops"]  # fmt: skip


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def default_sigterm():
    """Put aside the handler of the tests' own worker: a heartbeat's last signal may come after the run's handler is gone."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def overslept(folder, patch, owner, name, call, beat_seconds):
    """What a run leaves, that another takes over in call number `call` of a method, with what was there at
    that moment."""
    original, calls, there = getattr(owner, name), [], {}

    def wrapped(self, *arguments, **keywords):
        calls.append(None)
        if len(calls) == call:
            for _ in range(2):  # a sign of life under way at the first may come after it
                with (folder / LOCK).open("r+") as lock:  # as a real one does: never empty in between
                    lock.write(THEIRS.ljust(256))
                time.sleep(min(beat_seconds, 0.02))
            there.update(contents(folder))
            time.sleep(10 * min(beat_seconds, 0.02))
        return original(self, *arguments, **keywords)

    patch.setattr(owner, name, wrapped)
    patch.setattr(worker_module, "RunLock", functools.partial(RunLock, beat_seconds=beat_seconds))
    minutes = 1e-9 if (owner, call) == (StepRunner, 2) else 0.0
    words = "taken over by another process while this one showed no sign of life"
    with default_sigterm(), pytest.raises(TakenOver, match=words) as caught:
        run_config(little_config(folder, "cuttlefish", trainer__checkpoint_minutes=minutes))
    assert exit_code(caught.value) == EXIT_BUSY and len(calls) == call
    return there, contents(folder)


@pytest.mark.parametrize("beat_seconds", [0.02, 60.0])
@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (StepRunner, "step", 2),
        (StepRunner, "step", 4),
        (EpochRunner, "_evaluate", 2),
        (Trainer, "_begin_epoch", 3),
        (CuttlefishMethod, "on_fit_end", 1),
    ],
)
def test_who_lost_its_run_leaves_no_trace_in_it(owner, name, call, beat_seconds, tmp_path, monkeypatch):
    """Whether a sign of life that failed told it, or a look before it wrote."""
    there, left = overslept(tmp_path, monkeypatch, owner, name, call, beat_seconds)
    assert left == there and Path("record.json") not in left and Path(LOCK) in left


def test_who_wakes_after_the_other_has_finished_stops_too(tmp_path):
    with StopSignals() as stop, RunLock(tmp_path, float, beat_seconds=0.02):
        (tmp_path / LOCK).unlink()
        until_stopped(stop)
    assert not (tmp_path / LOCK).exists()


def test_a_machine_without_proc_has_an_identity_too(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    names = []
    for name in ("anns-laptop", "bobs-laptop", "anns-laptop"):
        monkeypatch.setattr(machine_module.socket, "gethostname", lambda name=name: name)
        names.append(machine_module.machine_id())
    assert names[0] == names[2] != names[1] and all(names) and "laptop" not in "".join(names)


def test_the_heart_beats(tmp_path):
    wall = itertools.count()

    def beat():
        return json.loads((tmp_path / LOCK).read_text())

    with RunLock(tmp_path, lambda: float(next(wall)), beat_seconds=0.02):
        wait_for(lambda: beat()["wall_seconds"] >= 2, 30)
        assert beat()["pid"] == os.getpid()
    assert not any(thread.name == "heartbeat" for thread in threading.enumerate())


@pytest.mark.parametrize(
    "content",
    [
        '{"pid": 1, "mach',
        "[" * 4000,
        "null",
        '{"wall_seconds": "x"}',
        '{"wall_seconds": -5}',
        '{"wall_seconds": 1e999}',
    ],
)
def test_a_damaged_lock_file_is_no_obstacle(tmp_path, content, monkeypatch):
    monkeypatch.setattr(lock_module, "SETTLE_SECONDS", 0.01)
    (tmp_path / LOCK).write_text(content.replace("{", f'{{"machine": "{machine_id()}", '))
    with RunLock(tmp_path, float) as lock:
        assert lock.lost_seconds == 0


def test_of_many_at_once_exactly_one_gets_it(tmp_path):
    assert at_once(tmp_path, 8) == (1, 7)


def test_the_lock_is_free_after_a_failure(tmp_path):
    for _ in range(2):
        with pytest.raises(CuttlefishError, match="the loss became"):
            run_config(little_config(tmp_path, recipe__schedule__peak_lr=1e30))
    assert not (tmp_path / LOCK).exists()


def test_who_waited_for_the_lock_does_not_train_again(tmp_path, monkeypatch):
    """Both saw an unfinished run; the other one finishes it while this one is still building its session."""
    session = worker_module.Session

    def slow(*arguments):
        monkeypatch.setattr(worker_module, "Session", session)
        run_config(little_config(tmp_path))
        return session(*arguments)

    monkeypatch.setattr(worker_module, "Session", slow)
    outcome, record = run_or_skip(little_config(tmp_path))
    assert outcome == "skipped" and record.status == "finished"
    assert run_or_skip(little_config(tmp_path))[0] == "skipped"
