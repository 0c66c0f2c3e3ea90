"""Outcomes of a sweep's runs: each job writes a small file, and the first process collects them.

Launchers return results only if every job ends normally; the files survive the death of other jobs.
"""

import json
import os
import secrets
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

from cuttlefish.config.identity import run_folder
from cuttlefish.config.schema import Config
from cuttlefish.errors import EXIT_BAD_INPUT, EXIT_BUSY, EXIT_CRASH, EXIT_SAVED, exit_code
from cuttlefish.record.atomic import write_atomic
from cuttlefish.record.fields import Record

STATES = {
    "finished": "finished",
    "skipped": "skipped (finished before)",
    "busy": "being run by another process",
    "interrupted": "interrupted (the same command goes on)",
    "not begun": "not begun",
    "failed": "failed",
}
"""State of an outcome -> its words in the summary."""
NOTE = "CUTTLEFISH_NOTE"
"""Environment variable of a sweep's job: the file for its outcome."""
LOST = "CUTTLEFISH_LOST"
"""Environment variable of a command that records a killed job: the error message."""
Ending = tuple[str, Record]
"""Whether a run finished now or was skipped, and its record."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of one run.

    Attributes:
        asked: Its command-line words.
        state: A key of STATES.
        code: The exit code.
        said: The error message.
        score: Headline metric of the last epoch; this and the following fields are for finished runs.
        params: Total parameters of the final model.
        switch_epoch: E; None without a switch.
        seconds: Device time.
        folder: The run folder.
        metric: Name of the headline metric.
    """

    asked: str
    state: str
    code: int = 0
    said: str = ""
    score: float | None = None
    params: int | None = None
    switch_epoch: int | None = None
    seconds: float | None = None
    folder: str = ""
    metric: str = "accuracy"


made: list[Outcome] = []
"""Outcomes of this process's runs; at the end, in the first process, of all runs."""
_first: list[int] = []


def begin() -> None:
    """Mark this as the process that the user started, and clear the outcomes."""
    made.clear()
    _first[:] = [os.getpid()]


def in_front() -> bool:
    """Return whether this is the process that the user started, not a launcher's job process."""
    return _first == [os.getpid()]


def success(asked: str, config: Config, state: str, record: Record) -> Outcome:
    size = {"params": record.params_total, "switch_epoch": record.switch_epoch}
    found = {"score": record.score, "metric": record.headline, "seconds": record.compute_seconds}
    return Outcome(asked, state, folder=str(run_folder(config, record.run_key)), **size, **found)


def failure(asked: str, error: BaseException) -> Outcome:
    code = exit_code(error)
    state = {EXIT_BUSY: "busy", EXIT_SAVED: "interrupted"}.get(code, "failed")
    return Outcome(asked, state, code, str(error) or type(error).__name__)


def worst_code(outcomes: Iterable[Outcome]) -> int:
    """Return the exit code of a sweep."""
    order = [0, EXIT_BUSY, EXIT_SAVED, EXIT_BAD_INPUT, EXIT_CRASH]
    return max((outcome.code for outcome in outcomes), key=order.index, default=0)


def summary(outcomes: list[Outcome]) -> str:
    """Return the number of runs by state, with the names of the failed ones."""
    counts = Counter(outcome.state for outcome in outcomes)
    told = ", ".join(f"{counts[state]} {words}" for state, words in STATES.items() if counts[state])
    failed = ", ".join(outcome.asked for outcome in outcomes if outcome.state == "failed")
    return f"{len(outcomes)} runs: {told}" + (f" ({failed})" if failed else "")


def show_table(outcomes: Sequence[Outcome]) -> None:
    """Print a row per run: swept values, headline metric, size, E, device time and folder."""
    from cuttlefish.display.format import duration, scored, short_count
    from cuttlefish.display.screen import cells, plain_table
    from cuttlefish.display.summary import as_text

    metrics = {one.metric for one in outcomes if one.folder}
    right = ("accuracy" if metrics <= {"accuracy"} else "metric", "size", "E", "time")
    columns = ("run", *right, "folder")
    table = plain_table("", *((name, "right" if name in right else "left") for name in columns))
    shared = set.intersection(*(set(outcome.asked.split()) for outcome in outcomes))
    for one in outcomes:
        swept = " ".join(word for word in one.asked.split() if word not in shared)
        switch = "" if one.switch_epoch is None else str(one.switch_epoch)
        results = (scored(one.metric, one.score), short_count(one.params), switch, duration(one.seconds))
        table.add_row(*cells(swept, *(results if one.folder else (one.state, "", "", "")), one.folder))
    width = max(100, *(len(one.asked) + len(one.folder) + 50 for one in outcomes))
    with suppress(OSError):
        print(as_text(table, width=width), flush=True)


def say(text: str) -> None:
    with suppress(OSError):  # a closed output (`| tee`, a lost connection) must not end a sweep
        print(f"cuttlefish: {text}", file=sys.stderr, flush=True)


def show_traceback(error: Exception) -> None:
    with suppress(OSError):
        traceback.print_exception(error)


class Notes(Callback):
    """Hydra callback that writes the outcomes of jobs in other processes (set in conf/config.yaml).

    `Notes.folder` has those of the latest sweep; None if the jobs run in the first process.
    """

    folder: Path | None = None
    mine: Path | None = None

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        here = config.hydra.launcher._target_.endswith("BasicLauncher")
        sweep = Path(config.hydra.sweep.dir).absolute()
        self.mine = Notes.folder = None if here else sweep / "outcomes" / secrets.token_hex(8)

    def on_job_end(self, config: Any, job_return: Any, **_: Any) -> None:
        if self.mine is not None and job_return.status.name == "COMPLETED" and made and not in_front():
            write_note(self.mine / f"{config.hydra.job.num:06d}.json", made[-1])


def keep(outcome: Outcome) -> None:
    """Keep the outcome of a run of this process, and write its file if this is a sweep's job."""
    made.append(outcome)
    if NOTE in os.environ:
        write_note(Path(os.environ[NOTE]), outcome)


def write_note(path: Path, outcome: Outcome) -> None:
    write_atomic(path, json.dumps(asdict(outcome)))


def collect() -> list[Outcome]:
    """Return the outcomes written by the jobs of the latest sweep, in order, and remove the files."""
    if Notes.folder is None or not Notes.folder.exists():
        return []
    paths = sorted(Notes.folder.glob("*.json"))
    found = [Outcome(**json.loads(path.read_text(encoding="utf-8"))) for path in paths]
    shutil.rmtree(Notes.folder)
    return found


def sum_up() -> int:
    """Report the outcomes of the command's runs, and return the worst exit code."""
    elsewhere = collect()
    for outcome in elsewhere:
        if outcome.said:
            say(f"{outcome.asked}: {outcome.said}")
    made.extend(elsewhere)
    if len(made) > 1:
        show_table(made)
        say(summary(made))
    return worst_code(made)
