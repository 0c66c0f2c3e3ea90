"""How the runs of a sweep ended: each job leaves a small file, and the first process counts them.

A launcher returns results only if every job came to an end; a file stays even if another job's machine died.
"""

import json
import os
import secrets
import shutil
import sys
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
"""What a run can have come to, and how that is told."""
NOTE = "CUTTLEFISH_NOTE"
"""Environment variable of a command that is a job of another command's sweep: the file for its outcome."""
LOST = "CUTTLEFISH_LOST"
"""Environment variable of a command that writes the record of a killed job: the sentence on what ended it."""
Ending = tuple[str, Record]
"""Whether a run was finished now or skipped, and its record."""


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    Attributes:
        asked: Its words of the command line.
        state: A key of STATES.
        code: The exit code.
        said: The sentence of the error.
        accuracy: The last epoch's, in percent; this and what follows are of runs that finished.
        params: All parameters of the final model.
        switch_epoch: E, None where no switch was made.
        seconds: Device time.
        folder: The run's.
    """

    asked: str
    state: str
    code: int = 0
    said: str = ""
    accuracy: float | None = None
    params: int | None = None
    switch_epoch: int | None = None
    seconds: float | None = None
    folder: str = ""


made: list[Outcome] = []
"""The outcomes of this process's runs, and in the first process at last those of all."""
_first: list[int] = []


def begin() -> None:
    """Make this the process that the user started, with no outcomes yet."""
    made.clear()
    _first[:] = [os.getpid()]


def in_front() -> bool:
    """Whether this is the process that the user started, and not a job that a launcher put elsewhere."""
    return _first == [os.getpid()]


def success(asked: str, config: Config, state: str, record: Record) -> Outcome:
    return Outcome(
        asked,
        state,
        accuracy=record.accuracy_final,
        params=record.params_total,
        switch_epoch=record.switch_epoch,
        seconds=record.compute_seconds,
        folder=str(run_folder(config, record.run_key)),
    )


def failure(asked: str, error: BaseException) -> Outcome:
    code = exit_code(error)
    return Outcome(
        asked,
        {EXIT_BUSY: "busy", EXIT_SAVED: "interrupted"}.get(code, "failed"),
        code,
        str(error) or type(error).__name__,
    )


def worst_code(outcomes: Iterable[Outcome]) -> int:
    """The exit code of a sweep."""
    return max(
        (outcome.code for outcome in outcomes),
        key=[0, EXIT_BUSY, EXIT_SAVED, EXIT_BAD_INPUT, EXIT_CRASH].index,
        default=0,
    )


def summary(outcomes: list[Outcome]) -> str:
    """How many runs came to what, with the failed ones named."""
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in STATES}
    told = ", ".join(f"{count} {STATES[state]}" for state, count in counts.items() if count)
    failed = ", ".join(outcome.asked for outcome in outcomes if outcome.state == "failed")
    return f"{len(outcomes)} runs: {told}" + (f" ({failed})" if failed else "")


def show_table(outcomes: Sequence[Outcome]) -> None:
    """Print a row for each run: what was swept, accuracy, size, E, device time and folder."""
    from cuttlefish.display.format import duration, percent, short_count
    from cuttlefish.display.screen import cells, plain_table
    from cuttlefish.display.summary import as_text

    right = ("accuracy", "size", "E", "time")
    columns = ("run", *right, "folder")
    table = plain_table("", *((name, "right" if name in right else "left") for name in columns))
    shared = set.intersection(*(set(outcome.asked.split()) for outcome in outcomes))
    for one in outcomes:
        swept = " ".join(word for word in one.asked.split() if word not in shared)
        switch = "" if one.switch_epoch is None else str(one.switch_epoch)
        results = (percent(one.accuracy), short_count(one.params), switch, duration(one.seconds))
        table.add_row(*cells(swept, *(results if one.folder else (one.state, "", "", "")), one.folder))
    with suppress(OSError):
        print(
            as_text(table, width=max(100, *(len(one.asked) + len(one.folder) + 50 for one in outcomes))),
            flush=True,
        )


def say(text: str) -> None:
    with suppress(
        OSError
    ):  # who read it may be gone (`| tee`, a lost connection), which is no reason to end a sweep
        print(f"cuttlefish: {text}", file=sys.stderr, flush=True)


def show_traceback(error: Exception) -> None:
    with suppress(OSError):
        traceback.print_exception(error)


class Notes:
    """Hydra's callback that writes down the outcomes of jobs in other processes (conf/config.yaml has it).

    `Notes.folder` is where those of the latest sweep are, None where the jobs run in the first process.
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

    def on_run_start(self, **_: Any) -> None: ...
    def on_run_end(self, **_: Any) -> None: ...
    def on_multirun_end(self, **_: Any) -> None: ...
    def on_job_start(self, **_: Any) -> None: ...


def keep(outcome: Outcome) -> None:
    """Remember the outcome of a run of this process, and write it down where another command started it."""
    made.append(outcome)
    if NOTE in os.environ:
        write_note(Path(os.environ[NOTE]), outcome)


def write_note(path: Path, outcome: Outcome) -> None:
    write_atomic(path, json.dumps(asdict(outcome)))


def collect() -> list[Outcome]:
    """What the jobs of the latest sweep wrote, in their order; the files are removed."""
    if Notes.folder is None or not Notes.folder.exists():
        return []
    paths = sorted(Notes.folder.glob("*.json"))
    found = [Outcome(**json.loads(path.read_text(encoding="utf-8"))) for path in paths]
    shutil.rmtree(Notes.folder)
    return found
