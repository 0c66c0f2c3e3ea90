"""Jobs of a sweep on this machine, some at a time, each a `run.py` of its own with one value for every word.

A job that is killed, for want of memory say, harms none of the others; a request to stop is handed on to all of them, and should
the sweep itself be killed, the kernel asks them.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cuttlefish.errors import EXIT_SAVED, CuttlefishError, Interrupted
from cuttlefish.process.outcomes import LOST, NOTE, Outcome, failure, write_note
from cuttlefish.process.signals import HANDLED, StopSignals, end_with_parent

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Job:
    """One run; note: the file in which it says how it ended; more: what stands before its words on the command line."""

    words: Sequence[str]
    note: Path
    more: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def command(self) -> list[str]:
        return [sys.executable, str(ROOT / "run.py"), *self.more, *self.words]

    def start(self) -> None:
        # In a session of its own: a terminal's Ctrl-C reaches the sweep alone, which hands it on once.
        self.process = subprocess.Popen(
            self.command, env={**os.environ, NOTE: str(self.note)}, stdin=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=partial(end_with_parent, os.getpid()),  # this early, for a job takes seconds to be able to
        )  # fmt: skip

    def see_to_note(self, stopped: bool) -> None:
        """Say how it ended, if it could not say so itself; what was killed leaves a failed record too."""
        if self.note.exists():
            return
        asked = " ".join(self.words)
        if stopped and (
            self.process is None or -self.process.returncode in HANDLED
        ):  # a scheduler may ask all of its processes by itself
            write_note(self.note, Outcome(asked, "not begun", EXIT_SAVED))
            return
        code = self.process.returncode
        ended = (
            f"was killed by {signal.Signals(-code).name}"
            if code < 0
            else f"ended without a word (exit code {code})"
        )
        sentence = f"its process {ended}; the same command goes on from the last checkpoint"
        # In a process of its own, for it needs torch, which the sweep itself has no memory to spare for.
        subprocess.run(self.command, env={**os.environ, LOST: sentence}, check=False)
        write_note(self.note, failure(asked, CuttlefishError(sentence)))


def run_jobs(jobs: Sequence[Job], at_once: int) -> None:
    """Until all have ended. Raises Interrupted when asked to stop, once those that had begun have saved themselves."""
    with StopSignals() as stop:
        try:
            _run(jobs, at_once, stop)
        except KeyboardInterrupt:  # a second Ctrl-C; the jobs have heard of the first
            _send(jobs, signal.SIGINT)
            while any([job.runs for job in jobs]):
                time.sleep(0.1)
            raise
        for job in jobs:
            job.see_to_note(stop.requested is not None)
    if stop.requested:
        raise Interrupted(f"stopped by {stop.requested}; the same command goes on", stop.requested)


def _run(jobs: Sequence[Job], at_once: int, stop: StopSignals) -> None:
    waiting, passed_on = list(jobs), False
    while (running := sum(job.runs for job in jobs)) or (waiting and not stop.requested):
        if stop.requested and not passed_on:
            passed_on = True
            _send(jobs, signal.SIGTERM)
        if waiting and not stop.requested and running < at_once:
            waiting.pop(0).start()
        else:
            time.sleep(0.1)


def _send(jobs: Sequence[Job], number: signal.Signals) -> None:
    for job in jobs:
        if job.runs:
            job.process.send_signal(number)
