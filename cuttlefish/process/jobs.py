"""Run the jobs of a sweep on this machine, some at a time, each a `run.py` of its own.

A job that is killed, for example for lack of memory, harms no other job. A request to stop is passed on to
all jobs, and if the sweep itself is killed, the kernel asks them to stop.
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
        words: Its words of the command line.
        note: The file to which it writes its outcome.
        more: Flags and words for Hydra, before its own words.
        process: Its process, once started.
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
        # In a session of its own: a terminal's Ctrl-C reaches the sweep alone, which hands it on once.
        self.process = subprocess.Popen(
            self.command,
            env={**os.environ, NOTE: str(self.note)},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            # This early, because a job takes seconds until it can ask by itself.
            preexec_fn=partial(end_with_parent, os.getpid()),
        )

    def complete_note(self, stopped: bool) -> None:
        """Write the outcome of a job that could not do it itself; a killed run gets a failed record too."""
        if self.note.exists():
            return
        asked = " ".join(self.words)
        # A scheduler may send its signal to all processes by itself.
        if stopped and (self.process is None or -self.process.returncode in HANDLED):
            write_note(self.note, Outcome(asked, "not begun", EXIT_SAVED))
            return
        code = self.process.returncode
        ended = (
            f"was killed by {signal.Signals(-code).name}"
            if code < 0
            else f"ended without a word (exit code {code})"
        )
        sentence = f"its process {ended}; the same command goes on from the last checkpoint"
        # In a process of its own: it needs torch, for which the sweep itself should not take memory.
        subprocess.run(self.command, env={**os.environ, LOST: sentence}, check=False)
        write_note(self.note, failure(asked, CuttlefishError(sentence)))


def run_jobs(jobs: Sequence[Job], at_once: int) -> None:
    """Run all jobs, `at_once` of them at a time, until they have ended.

    Raises:
        Interrupted: A stop was requested, and the jobs that had begun have saved their state.
    """
    with StopSignals() as stop:
        try:
            _run(jobs, at_once, stop)
        except KeyboardInterrupt:  # a second Ctrl-C; the jobs were told of the first
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
