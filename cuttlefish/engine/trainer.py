"""The training loop: phases × epochs × steps. What a method wants changed it says with a phase or a transition."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from cuttlefish.config import Config
from cuttlefish.data.resident import Batch
from cuttlefish.data.task import Task
from cuttlefish.engine.checkpoint import keep_before_switch, save_checkpoint
from cuttlefish.engine.clock import Clock
from cuttlefish.engine.distributed import World
from cuttlefish.engine.evaluate import Scores, evaluate, scores
from cuttlefish.engine.optimizer import set_lr
from cuttlefish.engine.profiler import first_steps
from cuttlefish.engine.stage import Stage
from cuttlefish.errors import CuttlefishError
from cuttlefish.methods.base import Context, Method, Phase
from cuttlefish.schedule import build_schedule, schedule_from_dict, schedule_to_dict
from cuttlefish.sinks.base import Sinks


@dataclass
class Progress:
    """Where a run stands; everything in it goes into the checkpoint.

    phase: index of the phase; epoch: the schedule's next epoch; trained: epochs over all phases; history: one summary a phase.
    """

    phase: int = 0
    epoch: int = 0
    trained: int = 0
    entered: bool = False
    best: float = -math.inf
    last: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """Trains one model with one method. `fit` returns what the training adds to the record."""

    def __init__(self, config: Config, task: Task, context: Context, method: Method, world: World, sinks: Sinks, clock: Clock):
        self.config, self.task, self.context, self.method = config, task, context, method
        self.world, self.sinks, self.clock = world, sinks, clock
        self.recipe, self.device = config.recipe, context.device
        self.progress = Progress()
        self.stage: Stage | None = None
        self._saved_at = time.monotonic()

    def fit(self, checkpoint: dict[str, Any] | None = None) -> dict[str, Any]:
        """Train from the start, or on from a checkpoint of this run."""
        if checkpoint is None:
            with self.clock.part("start"):
                self.method.on_fit_start(self.context)
        else:
            self.restore(checkpoint)
        start = self.progress.phase
        for index, phase in enumerate(islice(self.method.phases(self.context), start, None), start):
            self._run_phase(index, phase, checkpoint)
            checkpoint = None
        found = self.method.on_fit_end(self.context)
        self.clock.collect()
        return found

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Architecture first, then weights; the optimizer follows when its phase is taken up."""
        self.progress = Progress(**checkpoint["progress"])
        self.clock.load_state_dict(checkpoint["clock"])
        self.context.schedule = schedule_from_dict(checkpoint["schedule"])
        self.method.load_state_dict(self.context, checkpoint["method"])
        self.context.model.load_state_dict(checkpoint["model"])
        torch.set_rng_state(checkpoint["random"]["cpu"])
        if self.device.type == "cuda" and "cuda" in checkpoint["random"]:
            torch.cuda.set_rng_state(checkpoint["random"]["cuda"], self.device)

    def _run_phase(self, index: int, phase: Phase, checkpoint: dict[str, Any] | None) -> None:
        self.clock.phase = phase.name
        if checkpoint is None or not self.progress.entered:
            self._enter(index, phase)
        else:
            self._make_stage(phase, self.progress.epoch)
            self.stage.optimizer.load_state_dict(checkpoint["optimizer"])
        self.sinks.phase(phase.name, len(phase.epochs))
        for epoch in range(self.progress.epoch, phase.epochs.stop):
            if not self._begin_epoch(phase, epoch):
                break
            self._run_epoch(phase, epoch)
        self.progress.history[-1]["epochs"] = self.progress.trained - self.progress.history[-1]["before"]
        self.progress.entered = False
        self.progress.phase += 1

    def _enter(self, index: int, phase: Phase) -> None:
        self.stage = None
        self.context.schedule = phase.schedule or build_schedule(self.recipe.schedule, self.recipe.epochs)
        if phase.enter is not None:
            with self.clock.part("enter"):
                phase.enter(self.context)
        self.progress.epoch, self.progress.entered = phase.epochs.start, True
        self.progress.history.append({"name": phase.name, "before": self.progress.trained})
        self._make_stage(phase, phase.epochs.start)

    def _make_stage(self, phase: Phase, epoch: int) -> None:
        """The old stage goes first, so that no second optimizer or compiled model stays alive beside the new one."""
        self.stage = None
        lr = self.context.schedule.lr(epoch)
        self.stage = Stage(
            self.context.model, self.method, phase.optimizer or self.recipe.optimizer, lr, self.config.trainer, self.world, self.device
        )
        if self.config.trainer.compile:
            with self.clock.part("compile"):
                self.stage.warm_up(self._shapes(), self.recipe.label_smoothing)

    def _begin_epoch(self, phase: Phase, epoch: int) -> bool:
        """The method's say before an epoch; False if the phase ends here."""
        with self.clock.part("method"):
            transition = self.method.on_epoch_start(self.context, epoch)
        if transition is not None:
            if self.world.is_first:
                keep_before_switch(self._checkpoints)
            self.context.schedule = transition.schedule or self.context.schedule
            self._make_stage(phase, epoch)
            self.sinks.message(transition.reason)
        return not (phase.until is not None and phase.until())

    def _run_epoch(self, phase: Phase, epoch: int) -> None:
        lr = self.context.schedule.lr(epoch)
        set_lr(self.stage.optimizer, lr)
        before = self.clock.by_part()
        trained = self._train(f"{phase.name} {epoch + 1}/{phase.epochs.stop}")
        tested = self._evaluate(last=epoch == phase.epochs.stop - 1)
        self.progress.trained += 1
        self.progress.epoch = epoch + 1
        self._report(phase, epoch, lr, trained, tested, before)
        self._checkpoint(last=epoch == phase.epochs.stop - 1)

    def _train(self, label: str) -> Scores:
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        self.sinks.epoch_begin(self._steps, label)
        with self.clock.part("data"), first_steps(self.config.trainer.torch_profile, self.context.folder) as profiled:
            for batch in self._batches():
                with self.clock.part("train"):
                    self.stage.step(batch, self.recipe.label_smoothing, sums)
                self.sinks.step()
                profiled()
        result = scores(self.world.sum(sums))
        if not math.isfinite(result.loss):
            raise CuttlefishError(self._diverged(result.loss))
        return result

    def _evaluate(self, last: bool) -> Scores | None:
        if not last and (self.progress.trained + 1) % self.config.trainer.eval_epochs:
            return None
        with self.clock.part("evaluate"), self.method.evaluating(self.context.model):
            return evaluate(
                self.context.model, self._eval_batches(), autocast=self.context.autocast, reduce=self.world.sum, device=self.device
            )

    def _report(self, phase: Phase, epoch: int, lr: float, trained: Scores, tested: Scores | None, before: dict[str, float]) -> None:
        self.clock.collect()
        if tested is not None:
            self.progress.best = max(self.progress.best, tested.accuracy)
        now = self.clock.by_part()
        self.progress.last = {
            "epoch": self.progress.trained,
            "phase": phase.name,
            "schedule_epoch": epoch,
            "lr": lr,
            "train_loss": trained.loss,
            "train_accuracy": trained.accuracy,
            "test_loss": tested and tested.loss,
            "test_accuracy": tested and tested.accuracy,
            "params_total": sum(parameter.numel() for parameter in self.context.model.parameters()),
            "compute_seconds": self.clock.compute_seconds,
            "wall_seconds": self.clock.wall_seconds,
            "seconds": {part: seconds - before.get(part, 0.0) for part, seconds in now.items()},
        }
        self.sinks.epoch(self.progress.last)

    def _checkpoint(self, last: bool) -> None:
        settings = self.config.trainer
        due = self.progress.trained % settings.checkpoint_epochs == 0 and time.monotonic() - self._saved_at >= 60 * settings.checkpoint_minutes
        if self.world.is_first and (due or last):
            with self.clock.part("checkpoint"):
                save_checkpoint(self._checkpoints, self.progress.trained, self.state())
            self._saved_at = time.monotonic()

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs; tensors and plain containers."""
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "method_name": self.method.name,
            "progress": asdict(self.progress),
            "clock": self.clock.state_dict(),
            "schedule": schedule_to_dict(self.context.schedule),
            "method": self.method.state_dict(),
            "model": self.context.model.state_dict(),
            "optimizer": self.stage.optimizer.state_dict(),
            "random": random,
        }

    @property
    def _checkpoints(self) -> Path:
        return self.context.folder / "checkpoints"

    @property
    def _steps(self) -> int:
        steps = math.ceil(len(self.task.train) / self.recipe.batch_size)
        return min(steps, self.config.trainer.max_steps or steps)

    def _batches(self) -> Iterator[Any]:
        if self.config.trainer.overfit:
            return iter([self._example(self.recipe.batch_size)] * self._steps)
        stream = self.task.train.batches(
            self.recipe.batch_size, seed=self.config.seed, epoch=self.progress.trained, train=True,
            process=self.world.process, processes=self.world.processes,
        )  # fmt: skip
        return islice(stream, self._steps)

    def _eval_batches(self) -> Iterator[Any]:
        if self.config.trainer.overfit:
            return iter([self._example(self.recipe.batch_size)])
        stream = self.task.test.batches(
            self.recipe.eval_batch_size, seed=self.config.seed, epoch=0, train=False, process=self.world.process, processes=self.world.processes
        )
        return islice(stream, self.config.trainer.max_eval_batches)

    def _shapes(self) -> list[Any]:
        """One batch of each size that training will see."""
        whole, rest = divmod(len(self.task.train), self.recipe.batch_size)
        sizes = [self.recipe.batch_size] * bool(whole) + [rest] * bool(rest and self._steps > whole)
        return [self._example(max(size // self.world.processes, 1)) for size in sizes]

    def _example(self, size: int) -> Batch:
        images, labels = self.task.train.example(min(size, len(self.task.train)))
        return Batch(images, labels, len(labels))

    def _diverged(self, loss: float) -> str:
        norms = {name: float(parameter.detach().float().norm()) for name, parameter in self.context.model.named_parameters()}
        worst = sorted(norms, key=lambda name: norms[name] if math.isfinite(norms[name]) else math.inf, reverse=True)[:3]
        layers = ", ".join(f"‖{name}‖ = {norms[name]:.3g}" for name in worst)
        return (
            f"the loss became {loss} in epoch {self.progress.trained + 1} ({layers}); the last checkpoint is from before it: "
            "lower recipe.schedule.peak_lr or start again with precision=fp32"
        )
