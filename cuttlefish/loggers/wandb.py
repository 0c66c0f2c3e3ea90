"""Weights & Biases: offline by default, and never a reason for a run to wait long or to fail (`Loggers` drops a logger that raises)."""

import os
import secrets
from pathlib import Path
from typing import Any

from cuttlefish.config.schema import WandbConfig
from cuttlefish.loggers.base import Logger, RunInfo
from cuttlefish.loggers.wandb_stop import abandon_service, finish_within
from cuttlefish.record.atomic import write_atomic
from cuttlefish.record.fields import Record
from cuttlefish.record.folder import PLOTS
from cuttlefish.record.record import plain
from cuttlefish.record.redact import redact_config

SETTINGS = {
    "silent": True,
    "console": "off",
    # Seconds that a server out of reach may cost at the start and at the end; what is not uploaded stays on the disk.
    "init_timeout": 20.0,
    "login_timeout": 20.0,
    "finish_timeout": 60.0,
    "finish_timeout_raises": True,
    # No copy of the working tree, of the command line or of the machine's and its user's names: the record has what a reader
    # needs, without secrets. Where these names are not set at all, W&B looks for them itself.
    "host": "",
    "username": "",
    "email": "",
    "disable_git": True,
    "disable_code": True,
    "x_disable_meta": True,
}
STOP_SECONDS = 5.0
"""What an online run gets in place of `finish_timeout` when it is asked to stop."""
UNSENT = "unsent"
"""Beside the file of an online run that its server has not taken whole: `scripts.wandb_runs upload` sends it."""
LONGEST_TAG = 64
"""W&B refuses longer ones, and with them the run."""


class WandbLogger(Logger):
    """One W&B run a run, in the run folder: rank curves by layer, metrics by epoch, seconds by part, the record and the plots.

    identity: W&B's id of the run; None makes one (`run_id`). stop_seconds: how long the end of a stopped run may take online.
    """

    def __init__(self, config: WandbConfig, identity: str | None = None, stop_seconds: float = STOP_SECONDS):
        self.config, self.identity, self.stop_seconds = config, identity, stop_seconds
        self.run: Any = None

    def start(self, run: RunInfo) -> None:
        os.environ.setdefault(
            "WANDB_ERROR_REPORTING", "false"
        )  # offline it would look for its server; online it waits for it at the exit
        import wandb

        self.folder = Path(run.folder)
        online = {"resume": "allow"} if self.config.mode == "online" else {}
        try:
            self.run = wandb.init(
                project=self.config.project,
                entity=self.config.entity,
                mode=self.config.mode,
                dir=str(self.folder),
                id=self.identity or run_id(run),
                config=redact_config(plain(run.config)) | {"run_key": run.run_key},
                reinit="create_new",  # the jobs of a sweep share a process, but not a W&B run
                settings=wandb.Settings(
                    **{name: value for name, value in SETTINGS.items() if name in wandb.Settings.model_fields}
                ),
                **labels(run.config, self.config),
                **online,
            )
        except KeyboardInterrupt:  # stopped while it waits for its server
            abandon_service()
            raise
        self.run.define_metric("epoch")
        self.run.define_metric("*", step_metric="epoch")

    def epoch(self, row: dict[str, Any]) -> None:
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
        self.run.log(numbers | {f"seconds/{part}": value for part, value in row["seconds"].items()})

    def ranks(self, rows: list[dict[str, Any]]) -> None:
        for epoch in sorted({row["epoch"] for row in rows}):
            now = [row for row in rows if row["epoch"] == epoch]
            ranks = {f"ranks/{row['layer']}": row["stable_rank"] for row in now}
            ratios = {f"rank_ratio/{row['layer']}": row["scaled_rank"] / row["full_rank"] for row in now}
            self.run.log({"epoch": epoch, **ranks, **ratios})

    def profile(self, profile: dict[str, Any]) -> None:
        self.run.summary.update({f"speedup/{stack['name']}": stack["speedup"] for stack in profile["stacks"]})

    def finish(self, record: Record) -> None:
        import wandb

        fields = {name: value for name, value in vars(record).items() if isinstance(value, int | float | str)}
        fields |= {f"total_seconds/{part}": value for part, value in (record.seconds or {}).items()}
        self.run.summary.update(
            fields | {f"final_rank/{layer}": rank for layer, rank in (record.ranks or {}).items()}
        )
        plots = sorted((self.folder / PLOTS).glob("*.png"))
        if plots:
            self.run.log({f"plots/{path.stem}": wandb.Image(str(path)) for path in plots})
        self._end(0 if record.status == "finished" else 1, stopped=record.status == "interrupted")

    def close(self) -> None:
        if self.run is not None:
            self._end(1, stopped=True)

    def _end(self, exit_code: int, stopped: bool) -> None:
        run, self.run = self.run, None
        online = self.config.mode == "online"
        try:
            if stopped and online:
                finish_within(self.stop_seconds, run, exit_code)
            else:
                run.finish(exit_code=exit_code)
        except BaseException:
            if online:
                (Path(run.dir).parent / UNSENT).touch()
            raise


def labels(config: dict[str, Any], settings: WandbConfig) -> dict[str, Any]:
    """Name, group (what was run together), job type (so that a project sorts by method) and tags, from the resolved config."""
    model, data, method = (config[axis]["name"] for axis in ("model", "data", "method"))
    tags = {
        "scale": config.get("scale"),
        "preset": config["method"].get("preset"),
        "recipe": config.get("recipe", {}).get("name"),
        "precision": config.get("trainer", {}).get("precision"),
    }
    return {
        "name": f"{model} {data} {method} seed {config.get('seed')}",
        "group": settings.group or config.get("experiment_name") or f"{model}-{data}",
        "job_type": method,
        "tags": [
            tag[:LONGEST_TAG]
            for tag in [*settings.tags, *(f"{name}: {value}" for name, value in tags.items() if value)]
        ],
    }


def run_id(run: RunInfo) -> str:
    """The run key and a suffix that stays in the run folder: a resumed run continues its W&B run, a repeat gets its own."""
    path = Path(run.folder) / "wandb" / "run_id.txt"
    if run.resumed_from and path.exists():
        return path.read_text(encoding="utf-8").strip()
    identity = f"{run.run_key}-{secrets.token_hex(3)}"
    write_atomic(path, identity + "\n")
    return identity
