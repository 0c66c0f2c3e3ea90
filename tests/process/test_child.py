"""A run in a process of its own: asked in time, killed if deaf, never left behind."""

import os
import signal
import subprocess
import sys
from threading import Timer

import pytest

from cuttlefish.process.child import run_child
from cuttlefish.process.signals import StopSignals

SAVES = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); print('up', flush=True); time.sleep(60)"
DEAF = SAVES.replace("lambda *_: sys.exit(75)", "signal.SIG_IGN")


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_its_exit_code_is_the_answer(tmp_path):
    assert run_child(python("import sys; sys.exit(3)"), StopSignals(), tmp_path) == 3


def test_a_request_to_stop_is_handed_on_and_waited_for(tmp_path):
    with StopSignals() as stop:
        timer = Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        assert run_child(python(SAVES), stop, tmp_path) == 75
    timer.join()


@pytest.mark.parametrize(("code", "ended"), [(SAVES, 75), (DEAF, -signal.SIGKILL)])
def test_it_is_stopped_when_its_time_is_up_then_killed(tmp_path, code, ended):
    assert run_child(python(code), StopSignals(), tmp_path, seconds=1.0, grace=1.0) == ended


def test_it_is_asked_when_this_process_is_killed(tmp_path):
    said = tmp_path / "said"
    told = f"lambda *_: (open({str(said)!r}, 'w').write('asked'), os._exit(0))"
    child = f"import os, signal, time; signal.signal(signal.SIGTERM, {told}); print('up', flush=True); time.sleep(60)"
    parent = (
        "import sys; from pathlib import Path; from cuttlefish.process.child import run_child; from cuttlefish.process.signals import StopSignals; "
        f"run_child([sys.executable, '-c', {child!r}], StopSignals(), Path('.'))"
    )
    with subprocess.Popen(python(parent), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "up\n"
        process.kill()
        assert process.stdout.read() == "", "until the child has ended, too"
    assert said.read_text() == "asked"
