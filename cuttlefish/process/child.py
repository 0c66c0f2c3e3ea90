"""Run a command in a child process that stops when this process is asked to stop."""

import math
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from cuttlefish.process.signals import StopSignals, end_with_parent

LOOK_SECONDS = 0.2


def run_child(
    command: Sequence[str], stop: StopSignals, cwd: Path, seconds: float = math.inf, grace: float = math.inf
) -> int:
    """Run `command` until it ends. If this process is killed, the kernel sends the child SIGTERM.

    Args:
        command: The program and its arguments.
        stop: Entered by the caller; on its first request the child gets SIGTERM.
        cwd: The child's working directory.
        seconds: Time after which the child gets SIGTERM anyway.
        grace: Seconds from SIGTERM to SIGKILL.

    Returns:
        The exit code.

    Raises:
        KeyboardInterrupt: A second Ctrl-C came, which the terminal sends to both, and the child has ended.
    """
    process = subprocess.Popen(command, cwd=cwd, preexec_fn=partial(end_with_parent, os.getpid()))
    began = time.monotonic()
    asked = math.inf
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(LOOK_SECONDS)
            now = time.monotonic()
            if asked == math.inf and (stop.requested or now - began >= seconds):
                asked = now
                process.send_signal(signal.SIGTERM)
            elif now - asked >= grace:
                process.kill()
    except KeyboardInterrupt:
        process.wait()
        raise
