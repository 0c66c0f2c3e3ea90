"""How the runs of a sweep ended, wherever a launcher ran them: each job leaves a small file, and the front door counts them.

A launcher hands results back only if every job came to an end; what a file says holds even if a neighbour's machine died.
"""

import json
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cuttlefish.errors import EXIT_BAD_INPUT, EXIT_BUSY, EXIT_CRASH, EXIT_SAVED, exit_code
from cuttlefish.record.atomic import write_atomic

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
"""In the environment of a front door that is one job of another's sweep: the file for its outcome, in a folder of the sweep's."""
LOST = "CUTTLEFISH_LOST"
"""In that of one which is to write the record of a job that was killed before it could: what ended it."""


@dataclass(frozen=True)
class Outcome:
    """asked: the words of the command line that tell this run from its neighbours; state: a key of STATES; said: the error's sentence."""

    asked: str
    state: str
    code: int = 0
    said: str = ""


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


class Notes:
    """Hydra's callback (`hydra.callbacks` in conf/config.yaml): it travels to the jobs with a sweep and writes their outcomes down.

    In the front door's process `Notes.folder` is where those of the latest sweep are; None where the jobs run in that process.
    """

    folder: Path | None = None

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        here = config.hydra.launcher._target_.endswith("BasicLauncher")
        self.mine = (
            None if here else Path(config.hydra.sweep.dir).absolute() / "outcomes" / secrets.token_hex(8)
        )
        Notes.folder = self.mine

    def on_job_end(self, config: Any, job_return: Any, **_: Any) -> None:
        if (
            getattr(self, "mine", None) is not None
            and job_return.status.name == "COMPLETED"
            and job_return.return_value
        ):
            note(self.mine / f"{config.hydra.job.num:06d}.json", job_return.return_value)

    def on_run_start(self, **_: Any) -> None: ...
    def on_run_end(self, **_: Any) -> None: ...
    def on_multirun_end(self, **_: Any) -> None: ...
    def on_job_start(self, **_: Any) -> None: ...


def note(path: Path, outcome: Outcome) -> None:
    write_atomic(path, json.dumps(asdict(outcome)))


def noted() -> list[Outcome]:
    """What the jobs of the latest sweep wrote, in their order; the files are removed."""
    if Notes.folder is None or not Notes.folder.exists():
        return []
    found = [
        Outcome(**json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(Notes.folder.glob("*.json"))
    ]
    shutil.rmtree(Notes.folder)
    return found
