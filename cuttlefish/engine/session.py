"""One run in one process: checks first, then data, model, method and sinks around a trainer, then the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cuttlefish.config import Config
from cuttlefish.data import load_task
from cuttlefish.engine.checkpoint import newest_checkpoint
from cuttlefish.engine.clock import Clock
from cuttlefish.engine.context import make_context
from cuttlefish.engine.device import choose_device, peak_memory, set_up
from cuttlefish.engine.distributed import World
from cuttlefish.engine.fork import fork_state
from cuttlefish.engine.trainer import Trainer
from cuttlefish.lowrank.count import count_macs, count_parameters
from cuttlefish.methods import build_method
from cuttlefish.models import build_model
from cuttlefish.provenance import provenance
from cuttlefish.record import error_text, new_record, write_record
from cuttlefish.sinks import build_sinks
from cuttlefish.sinks.base import RunInfo, Sinks
from cuttlefish.validate import to_dict


class Session:
    """Construction checks everything that can be checked before training and writes nothing; `run` trains.

    Raises CuttlefishError where the device, the data, the model or the method do not fit the config.
    """

    def __init__(self, config: Config, key: str, folder: Path, world: World | None = None):
        self.config, self.key, self.folder = config, key, folder
        self.world = world or World()
        self.device = choose_device(config.trainer, self.world.process)
        set_up(config.trainer, self.device, config.seed)
        self.provenance = provenance(str(self.device), torch.get_num_threads() if self.device.type == "cpu" else None)
        self.clock = Clock(self.device)
        self.sinks = Sinks()
        self.task = load_task(config.data, self.device)
        model = build_model(config.model, self.task.classes, self.task.input_shape).to(self.device)
        self.method = build_method(config.method)
        self.context = make_context(
            config, self.task, model, device=self.device, world=self.world, folder=folder, sinks=self.sinks, clock=self.clock
        )
        example = torch.zeros(1, *self.task.input_shape, device=self.device)
        self.context.counts_full = {"params": count_parameters(model).total, "macs": count_macs(model, example)}
        self.method.check(self.context)
        self.forked_from: str | None = None
        self.fork = None
        if config.fork_from is not None:
            self.fork, self.forked_from = fork_state(Path(config.fork_from), config, self.method)

    def run(self) -> dict[str, Any]:
        """Train and record. A failure is recorded too, then raised."""
        checkpoint = newest_checkpoint(self.folder / "checkpoints") or self.fork
        if self.world.is_first:
            self.sinks.extend(build_sinks(self.config))
        trainer = Trainer(self.config, self.task, self.context, self.method, self.world, self.sinks, self.clock)
        resumed = checkpoint["progress"]["trained"] if checkpoint else 0
        with self.sinks:
            self.sinks.start(RunInfo(self.folder, to_dict(self.config), self.key, resumed))
            if resumed:
                self.sinks.message(f"going on after {resumed} epochs")
            try:
                found = trainer.fit(checkpoint)
                record = self._record("finished", trainer, **self._counts(), **found)
            except BaseException as error:
                status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
                self._write(self._record(status, trainer, error=error_text(error)))
                raise
            self._write(record)
        return record

    def _write(self, record: dict[str, Any]) -> None:
        if self.world.is_first:
            write_record(self.folder, record)
            self.sinks.finish(record)

    def _counts(self) -> dict[str, Any]:
        model = self.context.model
        counts = count_parameters(model)
        bits = self.method.stored_bits(model)
        return {
            "params_total": counts.total,
            "params_trainable": counts.trainable,
            "params_nonzero": counts.nonzero,
            "params_stored_bits": counts.stored_bits if bits is None else bits,
            "macs_final": count_macs(model, torch.zeros(1, *self.task.input_shape, device=self.device)),
        }

    def _record(self, status: str, trainer: Trainer, **found: Any) -> dict[str, Any]:
        config, progress = self.config, trainer.progress
        facts = {
            "run_key": self.key,
            "model": config.model.name,
            "data": config.data.name,
            "method": config.method["name"],
            "recipe": config.recipe.name,
            "preset": config.method.get("preset"),
            "seed": config.seed,
            "epochs": config.recipe.epochs,
            "scale": config.scale,
            "experiment_name": config.experiment_name,
            "forked_from": self.forked_from,
            "config": to_dict(config),
            "data_digest": self.task.digest,
            "precision": config.trainer.precision,
            "threads": torch.get_num_threads(),
            "world_size": self.world.processes,
            "params_full": self.context.counts_full["params"],
            "macs_full": self.context.counts_full["macs"],
            "epochs_trained": progress.trained,
            "phases": [dict(phase, seconds=self.clock.seconds.get(phase["name"], {})) for phase in progress.history],
            "accuracy_final": progress.last.get("test_accuracy"),
            "accuracy_best": progress.best if progress.last else None,
            "loss_final": progress.last.get("test_loss"),
            "compute_seconds": self.clock.compute_seconds,
            "wall_seconds": self.clock.wall_seconds,
            "seconds": self.clock.by_part(),
            "peak_memory_bytes": peak_memory(self.device),
        }
        return new_record(status, **facts, **self.provenance, **found)
