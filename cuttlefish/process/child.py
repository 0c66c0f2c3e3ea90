"""A run in a process of its own, which hears of it when this one is asked to stop."""

import math
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from cuttlefish.process.signals import StopSignals, end_with_parent

LOOK_SECONDS = 0.2


def run_child(
    command: Sequence[str],
    stop: StopSignals,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    seconds: float = math.inf,
    grace: float = math.inf,
) -> int:
    """The exit code of `command`. It is asked to save itself once `stop` is requested or after `seconds`, killed if it has not ended
    `grace` seconds later, and should this process be killed, the kernel asks it.

    stop: entered by the caller. Raises KeyboardInterrupt at a second Ctrl-C, which a terminal sends to both, once the child has ended.
    """
    process, began = (
        subprocess.Popen(command, cwd=cwd, env=env, preexec_fn=partial(end_with_parent, os.getpid())),
        time.monotonic(),
    )
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
