"""Our launcher asked to stop while its workers are in a long step: stand-ins that no request ends before
their time."""

import os
import signal
import threading
import time
from dataclasses import dataclass

import pytest

from cuttlefish.config.resolved import RESOLVED
from cuttlefish.config.schema import TrainerConfig
from cuttlefish.engine.processes import launch as launch_module
from cuttlefish.errors import Busy, CuttlefishError, Interrupted
from cuttlefish.worker import run_config
from tests.helpers.runs import little_config

STEP = """
import os, signal, time
from pathlib import Path
if "RANK" in os.environ:
    signal.signal(signal.SIGINT, lambda *_: None)
    here = Path(__file__).parent
    (here / f"begun{{os.environ['RANK']}}").write_text(str(os.getpid()))
    end = time.monotonic() + {seconds}
    while time.monotonic() < end:
        time.sleep(0.05)
    (here / f"saved{{os.environ['RANK']}}").touch()
    os._exit(75)
"""


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """Runs the launcher around two steps of so many seconds and sends it these signals, a second apart, once
    both have begun."""

    def act(numbers):
        while len([path for path in tmp_path.glob("begun*") if path.read_text()]) < 2:
            time.sleep(0.05)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(1)

    def call(seconds, *numbers):
        (tmp_path / "sitecustomize.py").write_text(STEP.format(seconds=seconds))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(launch_module, "GRACE_SECONDS", 1)
        threading.Thread(target=act, args=(numbers,), daemon=True).start()
        launch_module.launch(tmp_path / "resolved.yaml", TrainerConfig(devices=2, timeout_minutes=0.5))

    return call


def test_a_step_longer_than_the_grace_is_finished(launched, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="stopped by SIGINT"):
        launched(5, signal.SIGINT, signal.SIGTERM)
    assert len(list(tmp_path.glob("saved*"))) == 2 and signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_stops_at_once(launched, tmp_path):
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt) as caught:
        launched(60, signal.SIGINT, signal.SIGINT)
    assert not isinstance(caught.value, Interrupted) and time.monotonic() - began < 30
    for path in tmp_path.glob("begun*"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


def refused(folder, monkeypatch, error):
    """What is in the folder after a launch whose workers end so: names, and which write each file is from."""

    def refuse(*_):
        raise error

    monkeypatch.setattr(launch_module, "launch", refuse)
    with pytest.raises(type(error)):
        run_config(little_config(folder, trainer__devices=2))
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*")}


def test_a_second_launch_touches_nothing_of_the_first(tmp_path, monkeypatch):
    begun = refused(tmp_path / "run", monkeypatch, Busy("another process is at it"))
    assert list(begun) == [RESOLVED]
    assert refused(tmp_path / "run", monkeypatch, Busy("another process is at it")) == begun
    assert refused(tmp_path / "run", monkeypatch, CuttlefishError("bad input")) == begun, (
        "not its own to remove"
    )


def test_a_launch_that_is_refused_leaves_no_folder(tmp_path, monkeypatch):
    assert (
        refused(tmp_path / "run", monkeypatch, CuttlefishError("bad input")) == {}
        and not (tmp_path / "run").exists()
    )


def test_an_older_launcher_is_not_told_how_long_to_wait(monkeypatch):
    @dataclass
    class Older:
        run_id: str = ""

    @dataclass
    class Newer(Older):
        shutdown_timeout: int = 30

    for version, told in ((Older, {}), (Newer, {"shutdown_timeout": 90})):
        monkeypatch.setattr(launch_module, "LaunchConfig", version)
        assert launch_module._patience(90) == told
