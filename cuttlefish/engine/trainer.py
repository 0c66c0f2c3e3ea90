"""The training loop: phases × epochs × steps. A method controls it by its phases and transitions."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cuttlefish.config.schema import TrainerConfig
from cuttlefish.engine.average import Average
from cuttlefish.engine.batches import Batches
from cuttlefish.engine.checkpoint import explain_misfit, keep_before_switch, save_checkpoint
from cuttlefish.engine.evaluate import Scores, evaluate
from cuttlefish.engine.failures import check_loss, check_weights
from cuttlefish.engine.processes.world import World
from cuttlefish.engine.progress import Progress, random_state, restore_random_state
from cuttlefish.engine.step import StepRunner, allow_graphs
from cuttlefish.engine.timer import CheckpointTimer, Timer, first_steps
from cuttlefish.errors import Interrupted
from cuttlefish.loggers.base import Loggers
from cuttlefish.methods.base import Context, Method, Phase, Transition
from cuttlefish.methods.schedule import build_schedule, schedule_from_dict, schedule_to_dict
from cuttlefish.process.signals import Request, State, StopSignals
from cuttlefish.tasks.base import Batch


class Trainer:
    """Train one model with one method. `fit` returns the training's fields of the record."""

    def __init__(
        self,
        context: Context,
        method: Method,
        batches: Batches,
        config: TrainerConfig,
        world: World,
        loggers: Loggers,
        timer: Timer,
        stop: StopSignals,
        run: Mapping[str, Any] | None = None,
    ):
        self.context, self.method, self.batches, self.config = context, method, batches, config
        self.world, self.loggers, self.timer, self.stop = world, loggers, timer, stop
        self.recipe, self.device = context.recipe, context.device
        self.run = dict(run or {})
        """Fields that distinguish this run's checkpoints from another run's."""
        self.checkpoint_timer = CheckpointTimer(config)
        self.progress = Progress()
        self.runner: StepRunner | None = None
        self.average: Average | None = None
        self.saved = 0
        """Number of trained epochs in the newest checkpoint."""

    def fit(self, checkpoint: dict[str, Any] | None = None) -> dict[str, Any]:
        """Train from the start, or continue from a checkpoint of this run.

        Raises:
            Interrupted: A stop was requested, and the state is saved.
        """
        if checkpoint is None:
            with self.timer.section("start"):
                self.method.on_fit_start(self.context)
        else:
            with explain_misfit(self._checkpoints):
                self.restore(checkpoint)
        self.saved = self.progress.trained
        for phase in islice(self.method.phases(self.context), self.progress.phase, None):
            self._run_phase(phase, checkpoint)
            checkpoint = None
        if self.average is not None:
            self.average.copy_to(self.context.model)
        found = self.method.on_fit_end(self.context)
        self.timer.collect()
        return found

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Restore the architecture, then the weights; the optimizer is restored when its phase resumes."""
        self.progress = Progress(**checkpoint["progress"])
        self.context.schedule = schedule_from_dict(checkpoint["schedule"])
        self.method.load_state_dict(self.context, checkpoint["method"])
        self.context.model.load_state_dict(checkpoint["model"])
        restore_random_state(
            checkpoint["random"], checkpoint.get("random_others", []), self.world, self.device
        )

    def _run_phase(self, phase: Phase, checkpoint: dict[str, Any] | None) -> None:
        self.timer.phase = phase.name
        with self._between_epochs():
            if checkpoint is None or not self.progress.entered:
                self._enter(phase)
            else:
                self._begin_average(checkpoint.get("average"))
                self._make_runner(phase, self.progress.epoch)
                with explain_misfit(self._checkpoints):
                    self.runner.optimizer.load_state_dict(checkpoint["optimizer"])
        self.loggers.phase(phase.name, phase.epochs.stop - self.progress.epoch)
        for epoch in range(self.progress.epoch, phase.epochs.stop):
            if self.progress.step is None and not self._begin_epoch(phase, epoch):
                break
            self._run_epoch(phase, epoch)
        self.progress.end_phase()

    def _enter(self, phase: Phase) -> None:
        self.runner = None
        self.context.schedule = phase.schedule or build_schedule(self.recipe.schedule, self.recipe.epochs)
        if phase.enter is not None:
            with self.timer.section("enter"):
                phase.enter(self.context)
        self.progress.begin_phase(phase.name, phase.epochs.start)
        self._begin_average()
        self._make_runner(phase, phase.epochs.start)

    def _begin_average(self, state: dict[str, Any] | None = None) -> None:
        """Average the weights of a phase from its first step on, if the recipe asks for it."""
        if self.recipe.ema is None:
            return
        self.average = Average(self.context.model, self.recipe.ema)
        if state is not None:
            with explain_misfit(self._checkpoints):
                self.average.load_state_dict(state)

    def _make_runner(self, phase: Phase, epoch: int) -> None:
        """Replace the step runner. Drop the old one first, so that two optimizers never coexist in memory."""
        self.runner = None
        lr = self.context.schedule.lr(epoch)
        self.runner = StepRunner(
            self.context.model,
            self.batches.task,
            self.method,
            phase.optimizer or self.recipe.optimizer,
            lr,
            self.config,
            self.world,
            self.device,
            self.recipe.clip_norm,
            self.recipe.accumulate,
        )
        if self.config.compile:
            with self.timer.section("compile"):
                training, evaluation = self.batches.train_shapes(), self.batches.evaluation_shapes()
                allow_graphs(len(training) + len(evaluation))
                self.runner.warm_up(training, self.recipe.label_smoothing)
                self._scores(lambda split: evaluation)

    def _between_epochs(self) -> AbstractContextManager[None]:
        """Wrap code that may change the model, which can take a minute (decompositions, compilation).

        A stop request aborts it at once if all trained epochs are saved and there is one process; the resumed
        run then repeats it.
        """
        if self.world.processes > 1 or self.saved != self.progress.trained:
            return nullcontext()
        return self.stop.within(State.SAVED if self.progress.trained else State.UNTRAINED)

    def _begin_epoch(self, phase: Phase, epoch: int) -> bool:
        """Ask the method and handle requests. Return False if the phase ends here."""
        self.stop.check_owned()
        with self._between_epochs():
            self._ask_method(phase, epoch)
            if phase.until is not None and phase.until():
                return False
        self.progress.begin_epoch(self.timer.by_section())
        self._handle_requests()
        return True

    def _ask_method(self, phase: Phase, epoch: int) -> None:
        """Call the method's hook before an epoch, and apply its transition."""
        with self.timer.section("method"):
            transition = self.method.on_epoch_start(self.context, epoch)
        self._apply(transition, phase, epoch)
        self._ask_between_steps(phase, epoch)

    def _ask_between_steps(self, phase: Phase, epoch: int) -> None:
        """Call the method's hook if an interval of steps is over, and apply its transition."""
        steps = self.progress.trained * self.batches.steps + (self.progress.step or 0)
        if self.method.interval is None or steps == 0 or steps % self.method.interval:
            return
        with self.timer.section("method"):
            transition = self.method.on_interval(self.context, steps)
        self._apply(transition, phase, epoch)

    def _apply(self, transition: Transition | None, phase: Phase, epoch: int) -> None:
        """Rebuild the runner for a model that the method has changed."""
        if transition is not None:
            if self.world.is_first:
                keep_before_switch(self._checkpoints)
            self.context.schedule = transition.schedule or self.context.schedule
            if self.average is not None:
                self.average.follow(self.context.model)
            self._make_runner(phase, epoch)
            self.loggers.message(transition.reason)

    def _run_epoch(self, phase: Phase, epoch: int) -> None:
        last = epoch == phase.epochs.stop - 1
        self.runner.set_lr(self.context.schedule.lr(epoch))
        self.checkpoint_timer.begin_epoch()
        trained = self._train(phase, epoch)
        try:
            tested = self._evaluate(last)
        except Interrupted:
            self._save_within_epoch()  # only here has the method undone the changes of `evaluating`
            raise
        self.progress.end_epoch()
        self.stop.check_owned()
        self._report(phase, epoch, trained, tested)
        if self.world.all_reduce_max(last or self.checkpoint_timer.due_after_epoch(self.progress.trained)):
            self._save()

    def _train(self, phase: Phase, epoch: int) -> Scores:
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        if self.world.is_first:
            sums += torch.tensor(self.progress.sums, dtype=torch.float64, device=self.device)
        label = f"{phase.name} {epoch + 1}/{phase.epochs.stop}"
        self.loggers.epoch_begin(self.batches.steps - self.progress.step, label)
        with (
            self.timer.section("data"),
            first_steps(self.config.torch_profile, self.context.folder) as profiled,
        ):
            for batch in self.batches.train(self.progress.trained, self.progress.step):
                if self.progress.step:
                    self._ask_between_steps(phase, epoch)
                self._follow_schedule(epoch)
                with self.timer.section("train"):
                    self.runner.step(batch, self.recipe.label_smoothing, sums)
                    if self.average is not None:
                        self.average.update(self.context.model)
                self.loggers.step()
                profiled()
                self.progress.step += 1
                self._handle_requests(sums)
        self.progress.sums = self.world.sum(sums).tolist()
        loss, correct, samples = self.progress.sums
        loss /= max(samples, 1)
        self._check_finite(loss)
        accuracy = {} if self.batches.task.classes is None else {"accuracy": 100 * correct / max(samples, 1)}
        return Scores(loss, accuracy)

    def _follow_schedule(self, epoch: int) -> None:
        """Set the step's learning rate, if the schedule has one for each step."""
        if self.context.schedule.by_step:
            done = self.progress.step / self.batches.steps
            self.runner.set_lr(self.context.schedule.lr(epoch + done))

    def _handle_requests(self, sums: Tensor | None = None) -> None:
        """Save, or save and stop, between two steps, if any process requests it.

        Args:
            sums: This process's sums of the current epoch, if it has begun.
        """
        wanted = Request.SAVE if self.checkpoint_timer.due_within_epoch() else Request.NOTHING
        agreed = self.stop.agreed(self.world.all_reduce_max, wanted)
        if agreed is Request.NOTHING:
            return
        if sums is not None:
            self.progress.sums = self.world.sum(sums.clone()).tolist()
        self._save_within_epoch()
        if agreed is Request.SAVE_AND_STOP:
            raise Interrupted(self._stopped(), self.stop.requested)

    def _save_within_epoch(self) -> None:
        self._check_finite(self.progress.sums[0])
        self.timer.collect()
        self._save()

    def _check_finite(self, loss: float) -> None:
        check_loss(loss, self.context.model, self.progress.trained + 1)
        check_weights(self.context.model, self.progress.trained + 1)

    def _evaluate(self, last: bool) -> Scores | None:
        if not last and (self.progress.trained + 1) % self.config.eval_epochs:
            return None
        self.world.broadcast_buffers(self.context.model)
        if self.average is not None:
            self.world.broadcast_buffers(self.average.module)
        with self.timer.section("evaluate"):
            found = self._scores(lambda split: self._until_stopped(self.batches.evaluate(split)))
        check_loss(found.loss, self.context.model, self.progress.trained + 1, "the evaluation's loss")
        return found

    def _scores(self, batches: Callable[[str], Iterable[Batch]]) -> Scores:
        with nullcontext() if self.average is None else self.average.inside(self.context.model):
            return evaluate(self.context, self.method, self.batches.task, batches, self.world)

    def _until_stopped(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            yield batch
            if self.stop.agreed(self.world.all_reduce_max) is Request.SAVE_AND_STOP:
                raise Interrupted(self._stopped(), self.stop.requested)

    def _stopped(self) -> str:
        who, epoch = self.stop.requested or "another process", self.progress.trained + 1
        where = f"in epoch {epoch} after step {self.progress.step} of {self.batches.steps}"
        return f"stopped by {who} {where}, state saved; the same command goes on"

    def _report(self, phase: Phase, epoch: int, trained: Scores, tested: Scores | None) -> None:
        self.timer.collect()
        if tested is not None:
            self.progress.count_best(tested.metrics, self.batches.task.lower_is_better)
        self.progress.last = {
            "epoch": self.progress.trained,
            "phase": phase.name,
            "schedule_epoch": epoch,
            "lr": self.runner.lr,
            "train_loss": trained.loss,
            "train_accuracy": trained.accuracy,
            "test_loss": tested and tested.loss,
            "test_accuracy": tested and tested.accuracy,
            "metric": self.batches.task.primary,
            "metrics": tested and tested.metrics,
            "params_total": sum(parameter.numel() for parameter in self.context.model.parameters()),
            "compute_seconds": self.timer.compute_seconds,
            "wall_seconds": self.timer.wall_seconds,
            "seconds": {
                part: seconds - self.progress.parts.get(part, 0.0)
                for part, seconds in self.timer.by_section().items()
            },
        }
        self.loggers.epoch(self.progress.last)

    def _save(self) -> None:
        with self.timer.section("checkpoint"):
            state = self.state()
            if self.world.is_first:
                self.stop.check_owned()
                self.loggers.settle()
                save_checkpoint(self._checkpoints, self.progress.trained, state, self.progress.step)
        self.saved = self.progress.trained
        self.checkpoint_timer.saved(whole=self.progress.step is None)

    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs, as tensors and plain containers. A collective call."""
        random, *others = self.world.gather(random_state(self.device))
        return {
            "run": self.run,
            "method_name": self.method.name,
            "progress": asdict(self.progress),
            "clock": self.timer.state_dict(),
            "schedule": schedule_to_dict(self.context.schedule),
            "method": self.method.state_dict(),
            "model": self.context.model.state_dict(),
            "optimizer": self.runner.optimizer.state_dict(),
            **({} if self.average is None else {"average": self.average.state_dict()}),
            "random": random,
            "random_others": others,
        }

    @property
    def _checkpoints(self) -> Path:
        return self.context.folder / "checkpoints"
