"""Run the jobs of a sweep on this machine, each a separate `run.py`, some at a time.

A killed job, for example for lack of memory, affects no other job. A request to stop is forwarded to all
jobs, and if the sweep itself is killed, the kernel sends them SIGTERM.
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
    """One run.

    Attributes:
        words: Its command-line words.
        note: File to which it writes its outcome.
        more: Flags and words for Hydra, placed before `words`.
        process: Its process; None before it is started.
    """

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
        # In a new session: Ctrl-C then reaches only the sweep, which forwards it once.
        self.process = subprocess.Popen(
            self.command,
            env={**os.environ, NOTE: str(self.note)},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            # Set before exec, because a job needs seconds until it can do so itself.
            preexec_fn=partial(end_with_parent, os.getpid()),
        )

    def complete_note(self, stopped: bool) -> None:
        """Write the outcome of a job that did not write it; a killed run also gets a failed record."""
        if self.note.exists():
            return
        asked = " ".join(self.words)
        # A scheduler may signal all processes itself.
        if stopped and (self.process is None or -self.process.returncode in HANDLED):
            write_note(self.note, Outcome(asked, "not begun", EXIT_SAVED))
            return
        code = self.process.returncode
        ended = f"ended without a word (exit code {code})"
        if code < 0:
            ended = f"was killed by {signal.Signals(-code).name}"
        sentence = f"its process {ended}; the same command goes on from the last checkpoint"
        # In a child process, because it needs torch, whose memory the sweep should not occupy.
        subprocess.run(self.command, env={**os.environ, LOST: sentence}, check=False)
        write_note(self.note, failure(asked, CuttlefishError(sentence)))


def run_jobs(jobs: Sequence[Job], at_once: int) -> None:
    """Run all jobs, at most `at_once` at a time, until they end.

    Raises:
        Interrupted: A stop was requested, and the running jobs have saved their state.
    """
    with StopSignals() as stop:
        try:
            _run(jobs, at_once, stop)
        except KeyboardInterrupt:  # a second Ctrl-C; the first was forwarded
            _send(jobs, signal.SIGINT)
            while any([job.runs for job in jobs]):
                time.sleep(0.1)
            raise
        for job in jobs:
            job.complete_note(stop.requested is not None)
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
