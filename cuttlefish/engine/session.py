"""One run in one process: set up data, model, method and loggers, train, and write the record."""

import logging
import operator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cuttlefish.config.validate import to_dict
from cuttlefish.engine.batches import Batches
from cuttlefish.engine.context import make_context
from cuttlefish.engine.device import choose_device, element_type, peak_memory, set_up
from cuttlefish.engine.failures import check_training_forward, explain_torch_errors
from cuttlefish.engine.processes.sync_bn import check_has_norms, check_synchronisable
from cuttlefish.engine.processes.world import World
from cuttlefish.engine.run import Run
from cuttlefish.engine.saving.checkpoint import explain_misfit, newest_checkpoint
from cuttlefish.engine.saving.fork import fork_state
from cuttlefish.engine.saving.progress import Progress, times_measured
from cuttlefish.engine.saving.weights import save_weights
from cuttlefish.engine.timer import Timer
from cuttlefish.engine.trainer import Trainer
from cuttlefish.engine.training import Training
from cuttlefish.errors import CuttlefishError, TakenOver
from cuttlefish.loggers import build_loggers
from cuttlefish.loggers.base import Loggers, RunInfo
from cuttlefish.lowrank.count import count_macs, count_parameters, gradient_bytes
from cuttlefish.models import build_model
from cuttlefish.models.checkpoints import hub_commit
from cuttlefish.models.recompute import recompute_activations
from cuttlefish.process.signals import StopSignals
from cuttlefish.record.atomic import remove_left_overs
from cuttlefish.record.fields import Record
from cuttlefish.record.folder import RECORD
from cuttlefish.record.provenance import provenance
from cuttlefish.record.record import error_text, new_record, read_record, write_record
from cuttlefish.tasks.registry import data_set

logger = logging.getLogger("cuttlefish")


class Session:
    """All that one process needs for a run.

    The constructor makes all checks that are possible before training, and writes nothing.

    Args:
        state: The method's state, of a finished run; by default that of the newest checkpoint.

    Raises:
        CuttlefishError: The device, data, model or method does not fit the config.
    """

    def __init__(self, run: Run, world: World | None = None, state: dict[str, Any] | None = None):
        self.run, self.config, self.method = run, run.config, run.method
        self.world = world or World()
        self.fork, self.forked_from = (None, None) if self.config.fork_from is None else fork_state(run)
        trainer, seed = self.config.trainer, self.config.seed
        self.device = choose_device(trainer, self.world.local)
        set_up(trainer, self.device, seed, self.world.local_processes)
        threads = torch.get_num_threads() if self.device.type == "cpu" else None
        self.provenance = provenance(str(self.device), threads)
        self.timer = Timer(self.device)
        self.loggers = Loggers()
        dtype = element_type(trainer)
        self.task = data_set(self.config.data).task(self.config, self.device, dtype)
        batch, samples = self.config.recipe.batch_size, self.task.train_size
        if batch > samples:
            raise CuttlefishError(
                f"recipe.batch_size={batch} is above the {samples} {self.task.unit}s of the training set; "
                "choose a smaller one"
            )
        model = build_model(self.config.model, self.task.classes or 1, self.task.input_shape)
        self.revisions = hub_commit(self.config.model) | dict(self.task.revisions)
        if trainer.recompute:
            recompute_activations(model, self.config.model.name)
        model = model.to(self.device, dtype)
        if not self.world.is_first:  # same weights on all processes, but different dropout
            torch.manual_seed(seed + 2**32 * self.world.process)
        self.batches = Batches(self.task, self.config.recipe, trainer, seed, self.world)
        self.context = make_context(
            model, self.task, self.config.recipe, trainer, model_name=self.config.model.name, seed=seed,
            device=self.device, world=self.world, folder=run.folder, loggers=self.loggers, timer=self.timer,
            saved=lambda: self._newest().get("method", {}) if state is None else state,
            steps=self.batches.steps,
        )  # fmt: skip
        counts = {"params": count_parameters(model).total, "gradient_bytes": gradient_bytes(model)}
        self.context.counts_full = counts
        self._check_model(model)
        self.method.prepare(self.context)
        # Last, because torch's counter takes a second to import, which a refusal need not wait for.
        counts["macs"] = count_macs(model, self.task.example_batch(1).inputs)

    def train(self, lost_seconds: float = 0.0, stop: StopSignals | None = None) -> Record:
        """Train and write the record. A failure is recorded and raised again.

        Args:
            lost_seconds: Wall time up to the death of an earlier process. It includes the work since its last
                checkpoint, which is repeated.
            stop: Source of requests to stop, if any.

        Raises:
            TakenOver: Another process has taken over the run; nothing is recorded.
        """
        stop = stop or StopSignals()
        checkpoint = self._resume(lost_seconds)
        training = Training(
            self.context, self.method, self.batches, self.config.trainer, self.world, self.loggers,
            self.timer, stop, self.run.identity(),
        )  # fmt: skip
        with self.loggers:
            self._start_loggers(checkpoint)
            try:
                with explain_torch_errors(self.config.recipe, self.config.trainer):
                    found = Trainer(training).fit(checkpoint)
                    stop.check_owned()
                    self._keep_weights()
                    record = self._record("finished", training.progress, **self._counts(), **found)
            except BaseException as error:
                if not stop.owned():
                    raise TakenOver from error
                self._record_end(error, training.progress)
                raise
            self._write(record)
        return record

    def _resume(self, lost_seconds: float) -> dict[str, Any] | None:
        """Return the newest checkpoint, or the state to fork from; the timer goes on from its time."""
        if self.world.is_first:  # the lock is held: no other process writes here
            for place in (self.run.folder, self._checkpoints):
                remove_left_overs(place)
        # Read again: the state read before the lock was taken may be outdated.
        found = (self._newest() or self.fork) if self.world.is_first else None
        checkpoint = self.world.broadcast_object(found)
        if checkpoint:
            with explain_misfit(self._checkpoints):
                self.timer.load_state_dict(checkpoint["clock"])
        self.timer.at_least(max(lost_seconds, self._recorded_seconds()))
        return checkpoint

    def _start_loggers(self, checkpoint: dict[str, Any] | None) -> None:
        epochs, steps, measured = 0, 0, 0
        if checkpoint:
            with explain_misfit(self._checkpoints):
                epochs = operator.index(checkpoint["progress"]["trained"])
                steps = operator.index(checkpoint["progress"].get("step") or 0)
                measured = 0 if self.config.fork_from else times_measured(checkpoint["method"])
        if self.world.is_first:
            self.loggers.extend(build_loggers(self.config.logger))
        past = (epochs, steps / self.batches.steps, measured)
        self.loggers.start(RunInfo(self.run.folder, to_dict(self.config), self.run.key, *past))
        if checkpoint:
            self.loggers.message(f"going on after {epochs} epochs and {steps} steps")

    def _check_model(self, model: nn.Module) -> None:
        """Raise CuttlefishError for a model that would fail during training."""
        if self.config.trainer.sync_bn:
            if not getattr(self.method.settings, "extra_bn", False):  # which brings its own at the switch
                check_has_norms(model, self.config.model.name)
            if self.world.processes > 1:
                check_synchronisable(model)
        check_training_forward(model, self.task, min(self.batches.smallest(), 2), self.config.model.name)

    def _newest(self) -> dict[str, Any]:
        return newest_checkpoint(self._checkpoints, self.run.identity()) or {}

    def _record_end(self, error: BaseException, progress: Progress) -> None:
        """Record the error that ended the run; a failure to write the record does not replace that error."""
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        try:
            self._write(self._record(status, progress, error=error_text(error)))
        except CuttlefishError as also:
            logger.warning("%s", also)

    def _recorded_seconds(self) -> float:
        """Return the wall seconds in an earlier record of this run."""
        if not (self.run.folder / RECORD).exists():
            return 0.0
        try:
            return read_record(self.run.folder).wall_seconds or 0.0
        except CuttlefishError:
            return 0.0

    def _write(self, record: Record) -> None:
        if not self.world.is_first:
            return
        try:
            write_record(self.run.folder, record)
        except OSError as error:
            raise CuttlefishError(
                f"cannot write {self.run.folder / RECORD}: {error.strerror}; the checkpoints are intact, "
                "so make room and run the same command again"
            ) from error
        self.loggers.finish(record)

    def _keep_weights(self) -> None:
        """Write the weights for re-evaluation. A full disk is no error: the last checkpoint has them too."""
        if not self.world.is_first:
            return
        try:
            save_weights(self.run.folder, self.run.key, self.context.model, self.method.state_dict())
        except (OSError, ImportError) as error:
            logger.warning("the final weights are not kept as safetensors: %s", error)

    def _counts(self) -> dict[str, Any]:
        model = self.context.model
        counts = count_parameters(model)
        bits = self.method.stored_bits(model)
        return {
            "params_total": counts.total,
            "params_trainable": counts.trainable,
            "params_nonzero": counts.nonzero,
            "params_stored_bits": counts.stored_bits if bits is None else bits,
            "gradient_bytes_final": gradient_bytes(model),
            "macs_final": count_macs(model, self.task.example_batch(1).inputs),
        }

    def _record(self, status: str, progress: Progress, **found: Any) -> Record:
        timer = self.timer
        phases = [dict(phase, seconds=timer.seconds.get(phase["name"], {})) for phase in progress.history]
        facts = self.run.facts() | {
            "forked_from": self.forked_from,
            "revisions": self.revisions or None,
            "threads": torch.get_num_threads(),
            "world_size": self.world.processes,
            "params_full": self.context.counts_full["params"],
            "macs_full": self.context.counts_full["macs"],
            "gradient_bytes_full": self.context.counts_full["gradient_bytes"],
            "epochs_trained": progress.trained,
            "phases": phases,
            "accuracy_final": progress.last.get("test_accuracy"),
            "accuracy_best": progress.best.get("accuracy"),
            "metric": self.task.primary,
            "metrics": progress.last.get("metrics"),
            "metrics_best": progress.best or None,
            "loss_final": progress.last.get("test_loss"),
            "compute_seconds": timer.compute_seconds,
            "wall_seconds": timer.wall_seconds,
            "seconds": timer.by_section(),
            "peak_memory_bytes": peak_memory(self.device),
        }
        if self.loggers.dropped:
            found["loggers_dropped"] = list(self.loggers.dropped)
        return new_record(status, **facts, **self.provenance, **found)

    @property
    def _checkpoints(self) -> Path:
        return self.run.folder / "checkpoints"
