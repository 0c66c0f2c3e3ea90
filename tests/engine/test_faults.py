"""What a disk, a memory, a version or another process can do to a run: told in a sentence, and nothing that
was there is lost."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from cuttlefish.engine.saving.checkpoint import newest_checkpoint
from cuttlefish.engine.step import StepRunner
from cuttlefish.errors import CuttlefishError
from cuttlefish.loggers import build_loggers
from cuttlefish.loggers.base import Logger
from cuttlefish.record import atomic as files
from cuttlefish.record.folder import read_epochs
from cuttlefish.record.record import read_record
from cuttlefish.worker import main, run_config
from tests.helpers.comparing import differences
from tests.helpers.runs import little_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, run_config(little_config(folder, "cuttlefish"))


def fill_disk(patch, name, after=0):
    """Flushing a file whose name holds `name` finds no space, after so many times."""
    real, seen = files.os.replace, []

    def replace(source, target):
        if name in str(target):
            seen.append(target)
            if len(seen) > after:
                raise OSError(errno.ENOSPC, "No space left on device")
        return real(source, target)

    patch.setattr(files.os, "replace", replace)


def test_a_disk_full_during_the_record(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        fill_disk(patch, "record.json")
        with pytest.raises(
            CuttlefishError,
            match=r"cannot write .*record.json: No space left on device; the checkpoints are intact",
        ):
            run_config(little_config(tmp_path, "cuttlefish"))
    assert not (tmp_path / "record.json").exists()
    assert differences(tmp_path, run_config(little_config(tmp_path, "cuttlefish")), *whole) == []


@pytest.mark.parametrize(("calls", "stops"), [([4], False), (range(4, 999), True)])
def test_a_disk_full_during_the_log(whole, tmp_path, monkeypatch, calls, stops):
    """Room again before the checkpoint: every row is there. No room: the run stops at the checkpoint, and
    goes on with nothing lost."""
    real, seen = files.append_line, []

    def append_line(path, line):
        seen.append(path)
        if len(seen) in calls:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, line)

    config = little_config(tmp_path, "cuttlefish")
    with monkeypatch.context() as patch:
        patch.setattr("cuttlefish.loggers.jsonl.append_line", append_line)
        told = r"cannot write to the log of the run in .*: No space left .*same command again"
        with pytest.raises(CuttlefishError, match=told) if stops else nullcontext():
            run_config(config)
    assert differences(tmp_path, run_config(config), *whole) == []


def test_the_record_names_a_logger_that_was_dropped(tmp_path, monkeypatch):
    class Broken(Logger):
        def epoch(self, row):
            raise ConnectionError("no route to host")

    monkeypatch.setattr(
        "cuttlefish.engine.session.build_loggers", lambda config: [*build_loggers(config), Broken()]
    )
    record = run_config(little_config(tmp_path, recipe__epochs=1, recipe__schedule__warmup_epochs=0))
    assert record.extra["loggers_dropped"] == ["Broken at epoch (ConnectionError: no route to host)"]
    assert len(read_epochs(tmp_path)) == 1


def test_a_clock_that_goes_backwards_makes_no_time_negative(whole, tmp_path, monkeypatch):
    """The time of day is set back by hours at every look, before and after a stop; durations come from the
    monotonic clock."""
    day = iter(range(2_000_000_000, 0, -7200))
    monkeypatch.setattr("time.time", lambda: float(next(day)))
    with monkeypatch.context() as patch:
        fill_disk(patch, "epoch_", after=2)
        with pytest.raises(CuttlefishError):
            run_config(little_config(tmp_path, "cuttlefish"))
    record = run_config(little_config(tmp_path, "cuttlefish"))
    assert differences(tmp_path, record, *whole) == []
    assert 0 < record.compute_seconds <= record.wall_seconds < 600
    assert all(seconds >= 0 for row in read_epochs(tmp_path) for seconds in row["seconds"].values())


def test_a_full_disk_hides_no_other_failure(tmp_path, monkeypatch, caplog):
    fill_disk(monkeypatch, "record.json")
    with pytest.raises(CuttlefishError, match="the loss became"):
        run_config(little_config(tmp_path, recipe__schedule__peak_lr=1e30))
    assert "record.json: No space left" in caplog.text


@pytest.mark.parametrize("begun", [False, True])
def test_a_read_only_folder(tmp_path, monkeypatch, begun):
    if begun:
        fill_disk(monkeypatch, "record.json")
        with pytest.raises(CuttlefishError):
            run_config(little_config(tmp_path, recipe__epochs=1, recipe__schedule__warmup_epochs=0))
    real = os.open

    def refuse(path, flags, *mode, **keywords):
        if str(path).startswith(str(tmp_path)) and flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *mode, **keywords)

    monkeypatch.setattr(os, "open", refuse)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CuttlefishError, match=r"cannot write to the run folder .*: Read-only file system"):
        run_config(little_config(tmp_path, recipe__epochs=1, recipe__schedule__warmup_epochs=0))
    assert sorted(tmp_path.rglob("*")) == before


def finished(folder):
    run_config(little_config(folder, recipe__epochs=1, recipe__schedule__warmup_epochs=0))
    return folder / "record.json", lambda: run_config(
        little_config(folder, recipe__epochs=1, recipe__schedule__warmup_epochs=0)
    )


def test_a_record_of_another_version(tmp_path):
    path, again = finished(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    with pytest.raises(
        CuttlefishError,
        match=r"is of another version of this suite \(schema 99, not 1\): choose another run_dir or remove it",
    ):
        again()


def test_a_record_of_another_config(tmp_path):
    path, again = finished(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "run_key": "other"}))
    with pytest.raises(CuttlefishError, match="holds the record of run other, and this is run"):
        again()


def test_a_torn_record_is_written_again(tmp_path, caplog):
    path, again = finished(tmp_path)
    path.write_text(path.read_text()[:100])
    assert again().status == "finished" and "It will be written again" in caplog.text
    assert json.loads(path.read_text())["status"] == "finished"


def test_data_that_changed_under_a_run(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(StepRunner, "step", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_config(little_config(tmp_path))
    monkeypatch.setattr("cuttlefish.tasks.image_set.digest_of", lambda content: "f" * 64)
    with pytest.raises(
        CuttlefishError,
        match=r"was begun on other data \(digest [0-9a-f]{12}, now ffffffffffff\): put the data files back",
    ):
        run_config(little_config(tmp_path))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("Tried to allocate 2.00 GiB. GPU 0"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_says_what_to_lower(tmp_path, monkeypatch, error):
    def full(*arguments):
        raise error

    monkeypatch.setattr(StepRunner, "step", full)
    with pytest.raises(
        CuttlefishError, match=r"out of memory \(.*\): lower recipe.batch_size=16 .*trainer.precision=bf16"
    ):
        run_config(little_config(tmp_path))
    assert read_record(tmp_path).status == "failed"


def test_an_operation_without_a_deterministic_form_is_named(tmp_path, monkeypatch):
    def refused(*arguments):
        raise RuntimeError(
            "max_pool2d_backward_cuda does not have a deterministic implementation, but you set 'torch.use_…"
        )

    monkeypatch.setattr(StepRunner, "step", refused)
    with pytest.raises(
        CuttlefishError,
        match=r"deterministic=true, but max_pool2d_backward_cuda of this network .* or trainer.deterministic=false",
    ):
        run_config(little_config(tmp_path))


def test_other_runtime_errors_stay_what_they_are(tmp_path, monkeypatch):
    def wrong(*arguments):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(StepRunner, "step", wrong)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run_config(little_config(tmp_path))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot read .*No such file"),
        ("a: [", "cannot read"),
        ("- 1", "holds no mapping"),
        ("seeed: 1", "seeed"),
    ],
)
def test_a_bad_resolved_config(tmp_path, capsys, content, sentence):
    path = tmp_path / "resolved.yaml"
    if content is not None:
        path.write_text(content)
    assert main([str(path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("cuttlefish: ") and told.count("\n") == 1 and re.search(sentence, told)


KILLED = """
import os, signal, sys
from pathlib import Path
from cuttlefish.record import atomic as files
from cuttlefish.engine import step
from cuttlefish.worker import run_config
from tests.helpers.runs import little_config
where, folder = sys.argv[1], Path(sys.argv[2])
calls = 0
def die_at(number, function):
    def wrapped(*arguments, **keywords):
        global calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **keywords)
    return wrapped
if where == "mid-step":
    step.call_model = die_at(11, step.call_model)
else:
    replace = files.os.replace
    dying = die_at(3, replace)
    files.os.replace = lambda source, target: (dying if "epoch_" in str(target) else replace)(source, target)
run_config(little_config(folder, "cuttlefish"))
"""


@pytest.mark.parametrize(("where", "trained"), [("mid-step", 2), ("mid-checkpoint", 2)])
def test_killed_for_good(where, trained, whole, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, where, str(tmp_path)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert bool(list(tmp_path.rglob("*.tmp"))) == (where == "mid-checkpoint")
    assert (
        newest_checkpoint(tmp_path / "checkpoints")["progress"]["trained"] == trained
        and not (tmp_path / "record.json").exists()
    )
    assert differences(tmp_path, run_config(little_config(tmp_path, "cuttlefish")), *whole) == []
    assert not list(tmp_path.rglob("*.tmp"))
