"""One run in one process: checks first, then data, model, method and loggers around a trainer, then the record."""

import logging
from pathlib import Path
from typing import Any

import torch

from cuttlefish.config.schema import Config
from cuttlefish.config.validate import to_dict
from cuttlefish.data import load_task
from cuttlefish.engine.checkpoint import newest_checkpoint
from cuttlefish.engine.clock import Clock
from cuttlefish.engine.context import make_context
from cuttlefish.engine.device import choose_device, element_type, peak_memory, set_up
from cuttlefish.engine.distributed import World
from cuttlefish.engine.fork import fork_state
from cuttlefish.engine.refusals import told_if_refused
from cuttlefish.engine.trainer import Trainer
from cuttlefish.engine.weights import save_weights
from cuttlefish.errors import CuttlefishError, TakenOver
from cuttlefish.loggers import build_loggers
from cuttlefish.loggers.base import Loggers, RunInfo
from cuttlefish.lowrank.count import count_macs, count_parameters
from cuttlefish.methods import build_method
from cuttlefish.models import build_model
from cuttlefish.process.signals import StopSignals
from cuttlefish.record.atomic import remove_left_overs
from cuttlefish.record.folder import RECORD
from cuttlefish.record.provenance import provenance
from cuttlefish.record.record import error_text, new_record, read_record, write_record

logger = logging.getLogger("cuttlefish")


class Session:
    """Construction checks everything that can be checked before training and writes nothing; `run` trains.

    state: the method's, of a run that has ended; otherwise it is the newest checkpoint's.
    Raises CuttlefishError where the device, the data, the model or the method do not fit the config.
    """

    def __init__(
        self,
        config: Config,
        key: str,
        folder: Path,
        world: World | None = None,
        state: dict[str, Any] | None = None,
    ):
        self.config, self.key, self.folder = config, key, folder
        self.world = world or World()
        self.device = choose_device(config.trainer, self.world.local)
        set_up(config.trainer, self.device, config.seed, self.world.local_processes)
        self.provenance = provenance(
            str(self.device), torch.get_num_threads() if self.device.type == "cpu" else None
        )
        self.clock = Clock(self.device)
        self.loggers = Loggers()
        self.task = load_task(config.data, self.device)
        dtype = element_type(config.trainer)
        for images in (self.task.train, self.task.test):
            images.dtype, images.channels_last = dtype, config.trainer.channels_last
        model = build_model(config.model, self.task.classes, self.task.input_shape).to(self.device, dtype)
        if not self.world.is_first:  # the same weights everywhere, but no two processes drop the same units
            torch.manual_seed(config.seed + 2**32 * self.world.process)
        self.method = build_method(config.method)
        self.context = make_context(
            config, self.task, model, device=self.device, world=self.world, folder=folder, loggers=self.loggers, clock=self.clock,
            saved=lambda: (newest_checkpoint(folder / "checkpoints") or {}).get("method", {}) if state is None else state,
        )  # fmt: skip
        self.context.counts_full = {
            "params": count_parameters(model).total,
            "macs": count_macs(model, self._one_input()),
        }
        self.method.prepare(self.context)
        self.forked_from: str | None = None
        self.fork = None
        if config.fork_from is not None:
            self.fork, self.forked_from = fork_state(Path(config.fork_from), config, self.method)

    def run(self, lost_seconds: float = 0.0, stop: StopSignals | None = None) -> dict[str, Any]:
        """Train and record. A failure is recorded too, then raised. Raises TakenOver, and records nothing, once the run is another's.

        lost_seconds: wall time up to where an earlier process died; the work since its last checkpoint is done again, but was paid for.
        stop: who asks it to stop; None: nobody.
        """
        if self.world.is_first:  # under the run's lock: nobody else is writing here
            for place in (self.folder, self.folder / "checkpoints"):
                remove_left_overs(place)
        # Whatever was read before the lock was taken may be an older one.
        checkpoint = self.world.agree(
            (newest_checkpoint(self.folder / "checkpoints") or self.fork) if self.world.is_first else None
        )
        resumed = checkpoint["progress"]["trained"] if checkpoint else 0
        lost_seconds = max(lost_seconds, self._recorded_seconds())
        if self.world.is_first:
            self.loggers.extend(build_loggers(self.config))
        stop = stop or StopSignals()
        with self.loggers:
            trainer = Trainer(
                self.config, self.task, self.context, self.method, self.world, self.loggers, self.clock, stop
            )
            self.loggers.start(RunInfo(self.folder, to_dict(self.config), self.key, resumed))
            if checkpoint:
                self.loggers.message(
                    f"going on after {resumed} epochs and {checkpoint['progress'].get('step') or 0} steps"
                )
                self.clock.load_state_dict(checkpoint["clock"])
            self.clock.at_least(lost_seconds)
            try:
                with told_if_refused(self.config):
                    found = trainer.fit(checkpoint)
                    stop.check_owned()
                    self._keep_weights()
                    record = self._record("finished", trainer, **self._counts(), **found)
            except BaseException as error:
                if not stop.owned():
                    raise TakenOver from error
                self._record_end(error, trainer)
                raise
            self._write(record)
        return record

    def _record_end(self, error: BaseException, trainer: Trainer) -> None:
        """What ended the run is what its caller must hear of, even if the disk that caused it cannot take the record either."""
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        try:
            self._write(self._record(status, trainer, error=error_text(error)))
        except CuttlefishError as also:
            logger.warning("%s", also)

    def _recorded_seconds(self) -> float:
        """The wall time of an earlier piece that ended with a record."""
        try:
            return (
                read_record(self.folder).get("wall_seconds") or 0.0
                if (self.folder / RECORD).exists()
                else 0.0
            )
        except CuttlefishError:
            return 0.0

    def _write(self, record: dict[str, Any]) -> None:
        if not self.world.is_first:
            return
        try:
            write_record(self.folder, record)
        except OSError as error:
            raise CuttlefishError(
                f"cannot write {self.folder / RECORD}: {error.strerror}; the checkpoints are intact, so make room and run the same command again"
            ) from error
        self.loggers.finish(record)

    def _keep_weights(self) -> None:
        """For re-evaluation. The last checkpoint has them too, so a disk that refuses them costs the run nothing."""
        if not self.world.is_first:
            return
        try:
            save_weights(self.folder, self.key, self.context.model, self.method.state_dict())
        except (OSError, ImportError) as error:
            logger.warning("the final weights are not kept as safetensors: %s", error)

    def _one_input(self) -> torch.Tensor:
        return torch.zeros(
            1, *self.task.input_shape, device=self.device, dtype=element_type(self.config.trainer)
        )

    def _counts(self) -> dict[str, Any]:
        model = self.context.model
        counts = count_parameters(model)
        bits = self.method.stored_bits(model)
        return {
            "params_total": counts.total,
            "params_trainable": counts.trainable,
            "params_nonzero": counts.nonzero,
            "params_stored_bits": counts.stored_bits if bits is None else bits,
            "macs_final": count_macs(model, self._one_input()),
        }

    def _record(self, status: str, trainer: Trainer, **found: Any) -> dict[str, Any]:
        progress = trainer.progress
        facts = config_facts(self.config, self.key) | {
            "forked_from": self.forked_from,
            "data_digest": self.task.digest,
            "threads": torch.get_num_threads(),
            "world_size": self.world.processes,
            "params_full": self.context.counts_full["params"],
            "macs_full": self.context.counts_full["macs"],
            "epochs_trained": progress.trained,
            "phases": [
                dict(phase, seconds=self.clock.seconds.get(phase["name"], {})) for phase in progress.history
            ],
            "accuracy_final": progress.last.get("test_accuracy"),
            "accuracy_best": progress.best if progress.last else None,
            "loss_final": progress.last.get("test_loss"),
            "compute_seconds": self.clock.compute_seconds,
            "wall_seconds": self.clock.wall_seconds,
            "seconds": self.clock.by_part(),
            "peak_memory_bytes": peak_memory(self.device),
        }
        if self.loggers.dropped:
            found["loggers_dropped"] = list(self.loggers.dropped)
        return new_record(status, **facts, **self.provenance, **found)


def config_facts(config: Config, key: str) -> dict[str, Any]:
    """The record's fields that are known before anything is built."""
    return {
        "run_key": key,
        "model": config.model.name,
        "data": config.data.name,
        "method": config.method["name"],
        "recipe": config.recipe.name,
        "preset": config.method.get("preset"),
        "seed": config.seed,
        "epochs": config.recipe.epochs,
        "scale": config.scale,
        "experiment_name": config.experiment_name,
        "config": to_dict(config),
        "precision": config.trainer.precision,
    }
