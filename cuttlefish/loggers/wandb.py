"""Weights & Biases, offline by default; if it fails, `Loggers` drops it and the run goes on."""

import os
import secrets
from pathlib import Path
from typing import Any

from cuttlefish.config.schema import WandbConfig
from cuttlefish.display.format import one_line
from cuttlefish.loggers.base import Logger, RunInfo
from cuttlefish.loggers.values import numbers_of, printable_values, rank_curves, speedups
from cuttlefish.record.atomic import write_atomic
from cuttlefish.record.fields import Record
from cuttlefish.record.folder import PLOTS, read_epochs, read_ranks
from cuttlefish.record.record import plain
from cuttlefish.record.redact import redact_config, redact_value

SETTINGS = {
    "silent": True,
    "console": "off",
    # Seconds to wait for an unreachable server at start and end; unsent data stays on disk.
    "init_timeout": 20.0,
    "login_timeout": 20.0,
    "finish_timeout": 20.0,
    "finish_timeout_raises": True,
    # No copy of the working tree, command line, host or user name: the record has what readers need,
    # without secrets. W&B would fill in names that are not set.
    **dict.fromkeys(("host", "username", "email"), ""),
    **dict.fromkeys(("disable_git", "disable_code", "x_disable_meta"), True),
}
LONGEST_TAG = 64
"""Maximum length of a tag: W&B rejects a run with longer ones."""


class WandbLogger(Logger):
    """Logger to a W&B run in the run folder: metrics, ranks and seconds by epoch, the record, the plots.

    An offline piece of a resumed run also logs the earlier pieces' epochs: the pieces share one W&B id, and
    `wandb sync` replaces the server's data by that of a piece.
    """

    def __init__(self, config: WandbConfig):
        self.config = config
        self.run: Any = None

    def start(self, run: RunInfo) -> None:
        # Error reports would contact a server when offline, and delay the exit when online.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self.folder = Path(run.folder)
        online = {"resume": "allow"} if self.config.mode == "online" else {}
        known = {name: value for name, value in SETTINGS.items() if name in wandb.Settings.model_fields}
        self.run = wandb.init(
            project=self.config.project,
            entity=self.config.entity,
            mode=self.config.mode,
            dir=str(self.folder),
            id=run_id(run),
            config=printable_values(redact_config(plain(run.config))) | {"run_key": run.run_key},
            reinit="create_new",  # the jobs of a sweep share a process but not a W&B run
            settings=wandb.Settings(**known),
            **labels(run.config, self.config),
            **online,
        )
        self.run.define_metric("epoch")
        self.run.define_metric("*", step_metric="epoch")
        if run.resumed_from and not online:
            self._log_again(run.resumed_from)

    def _log_again(self, epochs: int) -> None:
        """Log the first `epochs` epochs of the run folder, each epoch's ranks before the next epoch's row."""
        rows, ranks = read_epochs(self.folder), read_ranks(self.folder)
        for number in range(epochs + 1):
            self.ranks([rank for rank in ranks if number - 1 < rank["epoch"] <= number])
            for row in rows:
                if row["epoch"] == number + 1 <= epochs:
                    self.epoch(row)

    def epoch(self, row: dict[str, Any]) -> None:
        self.run.log(numbers_of(row))

    def ranks(self, rows: list[dict[str, Any]]) -> None:
        for epoch, curves in rank_curves(rows).items():
            self.run.log({"epoch": epoch, **curves})

    def profile(self, profile: dict[str, Any]) -> None:
        self.run.summary.update(speedups(profile))

    def finish(self, record: Record) -> None:
        import wandb

        fields = {name: value for name, value in vars(record).items() if isinstance(value, int | float | str)}
        fields |= {f"total_seconds/{part}": value for part, value in (record.seconds or {}).items()}
        fields |= {f"metrics/{name}": value for name, value in (record.metrics or {}).items()}
        fields |= {f"final_rank/{layer}": rank for layer, rank in (record.ranks or {}).items()}
        self.run.summary.update(printable_values(fields))
        plots = sorted((self.folder / PLOTS).glob("*.png"))
        if plots:
            self.run.log({f"plots/{path.stem}": wandb.Image(str(path)) for path in plots})
        self._end(0 if record.status == "finished" else 1)

    def close(self) -> None:
        if self.run is not None:
            self._end(1)

    def _end(self, exit_code: int) -> None:
        run, self.run = self.run, None
        run.finish(exit_code=exit_code)


def labels(config: dict[str, Any], settings: WandbConfig) -> dict[str, Any]:
    """Return the name, group (experiment), job type (method) and tags of a run."""
    model, data, method = (config[axis]["name"] for axis in ("model", "data", "method"))
    tags = {
        "scale": config.get("scale"),
        "preset": config["method"].get("preset"),
        "recipe": config.get("recipe", {}).get("name"),
        "precision": config.get("trainer", {}).get("precision"),
    }
    words = [*settings.tags, *(f"{name}: {value}" for name, value in tags.items() if value)]
    group = settings.group or config.get("experiment_name") or f"{model}-{data}"
    return {
        "name": one_line(f"{model} {data} {method} seed {config.get('seed')}"),
        "group": one_line(redact_value(group)),
        "job_type": one_line(method),
        "tags": [one_line(redact_value(word))[:LONGEST_TAG] for word in words],
    }


def run_id(run: RunInfo) -> str:
    """Return the W&B id: run key and suffix, kept in the run folder on resume; a repeat gets a new one."""
    path = Path(run.folder) / "wandb" / "run_id.txt"
    if run.resumed_from and path.exists():
        return path.read_text(encoding="utf-8").strip()
    identity = f"{run.run_key}-{secrets.token_hex(3)}"
    write_atomic(path, identity + "\n")
    return identity
