"""TensorBoard, through torch's writer: `tensorboard --logdir runs` shows all runs in the folder."""

import json
from math import ceil
from pathlib import Path
from typing import Any

from cuttlefish.loggers.base import Logger, RunInfo
from cuttlefish.loggers.values import numbers_of, printable_values, rank_curves, speedups
from cuttlefish.record.fields import Record
from cuttlefish.record.record import plain
from cuttlefish.record.redact import redact_config

FOLDER = "tensorboard"


class TensorBoardLogger(Logger):
    """Logger of metrics, ranks, config and record to `tensorboard/` in the run folder."""

    def start(self, run: RunInfo) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "logger.tensorboard=true needs the tensorboard package, which is not installed: "
                "pip install tensorboard"
            ) from error
        # Later steps of an earlier piece of the run are replaced.
        self.writer = SummaryWriter(str(Path(run.folder) / FOLDER), purge_step=run.resumed_from + 1)
        self.trained = run.resumed_from
        self._text("config", redact_config(plain(run.config)) | {"run_key": run.run_key})

    def epoch(self, row: dict[str, Any]) -> None:
        self.trained = row["epoch"]
        self._numbers(
            {name: value for name, value in numbers_of(row).items() if name != "epoch"}, row["epoch"]
        )

    def ranks(self, rows: list[dict[str, Any]]) -> None:
        for epoch, curves in rank_curves(rows).items():
            self._numbers(curves, ceil(epoch))

    def profile(self, profile: dict[str, Any]) -> None:
        self._numbers(speedups(profile), self.trained)

    def finish(self, record: Record) -> None:
        self._text("record", {name: value for name, value in plain(vars(record)).items() if name != "config"})

    def close(self) -> None:
        if hasattr(self, "writer"):
            self.writer.close()

    def _numbers(self, numbers: dict[str, float], epoch: int) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def _text(self, name: str, value: dict[str, Any]) -> None:
        """Log a value as a code block, which TensorBoard's Markdown leaves unchanged."""
        lines = json.dumps(printable_values(value), indent=2, ensure_ascii=False).splitlines()
        self.writer.add_text(name, "\n".join(f"    {line}" for line in lines), self.trained)
