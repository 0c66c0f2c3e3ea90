"""`metrics.csv` in the run folder: the epoch rows as a table for a spreadsheet or pandas."""

import csv
import io
from pathlib import Path
from typing import Any

from cuttlefish.loggers.base import Logger, RunInfo
from cuttlefish.loggers.values import numbers_of
from cuttlefish.record.atomic import write_atomic
from cuttlefish.record.folder import read_epochs

METRICS = "metrics.csv"


class CsvLogger(Logger):
    """Logger with a row per epoch and a column per number, seconds by part as `seconds/<part>`."""

    def start(self, run: RunInfo) -> None:
        self.path = Path(run.folder) / METRICS
        earlier = [row for row in read_epochs(run.folder) if row["epoch"] <= run.resumed_from]
        self.rows = [numbers_of(row) for row in earlier]

    def epoch(self, row: dict[str, Any]) -> None:
        self.rows.append(numbers_of(row))
        text = io.StringIO()
        table = csv.DictWriter(
            text, dict.fromkeys(name for row in self.rows for name in row), lineterminator="\n"
        )
        table.writeheader()
        table.writerows(self.rows)
        write_atomic(self.path, text.getvalue())
