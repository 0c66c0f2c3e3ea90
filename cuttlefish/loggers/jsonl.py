"""The log files of every run folder: `epochs.jsonl`, `ranks.csv` and `log.txt`."""

import json
import logging
from collections import deque
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from cuttlefish.loggers.base import Logger, RunInfo
from cuttlefish.record.atomic import append_line
from cuttlefish.record.fields import Record
from cuttlefish.record.folder import EPOCHS, LOG, RANK_COLUMNS, RANKS, csv_line, cut_back, forget_ranks
from cuttlefish.record.record import plain

logger = logging.getLogger("cuttlefish.loggers")


class JsonLines(Logger):
    """Logger that writes each row to disk immediately. On resume rows after the checkpoint are dropped.

    Rows that a full disk rejects are queued and retried at the next call; `settle` prevents a checkpoint from
    being written before them.
    """

    def __init__(self) -> None:
        self.waiting: deque[Callable[[], None]] = deque()
        self.trouble: OSError | None = None

    def start(self, run: RunInfo) -> None:
        self.folder = Path(run.folder)
        self.known_ranks = run.resumed_from + run.within
        begins = None if run.config.get("fork_from") else 1  # a fork has no rows for its origin's epochs
        self._write(partial(self._open, run, begins))
        resumed = f"resumed after epoch {run.resumed_from}" if run.resumed_from else ""
        self.message(resumed or f"started, run key {run.run_key}")

    def epoch(self, row: dict[str, Any]) -> None:
        line = json.dumps(plain(row), ensure_ascii=False, allow_nan=False)
        self._write(partial(append_line, self.folder / EPOCHS, line))

    def ranks(self, rows: list[dict[str, Any]]) -> None:
        # A resumed run may re-estimate the ranks at the checkpoint: the new rows replace the old ones.
        repeated = {row["epoch"] for row in rows if row["epoch"] <= self.known_ranks}
        if repeated:
            self._write(partial(forget_ranks, self.folder, repeated))
        lines = [csv_line([row[column] for column in RANK_COLUMNS if column in row]) for row in rows]
        if lines:
            self._write(partial(append_line, self.folder / RANKS, "\n".join(lines)))

    def settle(self) -> str | None:
        self._catch_up()
        if self.trouble is None:
            return None
        return f"cannot write to the log of the run in {self.folder}: {self.trouble.strerror}"

    def message(self, text: str) -> None:
        self._write(partial(append_line, self.folder / LOG, _stamped(text)))

    def profile(self, profile: dict[str, Any]) -> None:
        self.message(
            f"profile ({profile['source']}): K = {profile['k']}, {len(profile['layers'])} layers to factorize"
        )

    def finish(self, record: Record) -> None:
        self.message(f"{record.status}" + (f"\n{record.error}" if record.error else ""))

    def _open(self, run: RunInfo, begins: int | None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for problem in cut_back(self.folder, run.resumed_from, begins, run.within, run.measured):
            logger.warning("%s: %s", self.folder, problem)
            append_line(self.folder / LOG, _stamped(problem))
        if not (self.folder / RANKS).exists():
            append_line(self.folder / RANKS, csv_line(list(RANK_COLUMNS)))

    def _write(self, action: Callable[[], None]) -> None:
        self.waiting.append(action)
        self._catch_up()

    def _catch_up(self) -> None:
        told, self.trouble = self.trouble, None
        while self.waiting and self.trouble is None:
            try:
                self.waiting[0]()
                self.waiting.popleft()
            except OSError as error:
                self.trouble = error
                if told is None:
                    logger.warning(
                        "cannot write to %s for now: %s; its rows wait for room", self.folder, error.strerror
                    )
            except Exception as error:  # a row that can never be written must not block the rest
                self.waiting.popleft()
                logger.warning("left out of the log in %s: %s: %s", self.folder, type(error).__name__, error)


def _stamped(text: str) -> str:
    return f"{datetime.now().astimezone().isoformat(sep=' ', timespec='seconds')}  {text}"
