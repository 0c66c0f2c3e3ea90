"""The training loop: phases × epochs. A method controls it by its phases and transitions."""

from itertools import islice
from typing import Any

from cuttlefish.engine.epoch import EpochRunner
from cuttlefish.engine.saving.checkpoint import explain_misfit, keep_before_switch
from cuttlefish.engine.saving.saver import Saver
from cuttlefish.engine.training import Training
from cuttlefish.methods.base import Phase, Transition
from cuttlefish.methods.schedule import build_schedule, timed


class Trainer:
    """Train one model with one method. `fit` returns the training's fields of the record."""

    def __init__(self, training: Training):
        self.training = training
        self.context, self.method, self.timer = training.context, training.method, training.timer
        self.saver = Saver(training)
        self.epochs = EpochRunner(training, self.saver, self._ask_between_steps)

    def fit(self, checkpoint: dict[str, Any] | None = None) -> dict[str, Any]:
        """Train from the start, or continue from a checkpoint of this run.

        Raises:
            Interrupted: A stop was requested, and the state is saved.
        """
        training = self.training
        if checkpoint is None:
            with self.timer.section("start"):
                self.method.on_fit_start(self.context)
        else:
            with explain_misfit(self.saver.folder):
                training.load_state_dict(checkpoint)
        self.saver.saved = training.progress.trained
        for phase in islice(self.method.phases(self.context), training.progress.phase, None):
            self._run_phase(phase, checkpoint)
            checkpoint = None
        if training.average is not None:
            training.average.copy_to(self.context.model)
        found = self.method.on_fit_end(self.context)
        self.timer.collect()
        return found

    def _run_phase(self, phase: Phase, checkpoint: dict[str, Any] | None) -> None:
        training, progress = self.training, self.training.progress
        self.timer.phase = phase.name
        with self.saver.between_epochs():
            if checkpoint is None or not progress.entered:
                self._enter(phase)
            else:
                training.begin_average()
                training.make_runner(phase.optimizer, progress.epoch)
                with explain_misfit(self.saver.folder):
                    training.load_phase_state(checkpoint)
        training.loggers.phase(phase.name, phase.epochs.stop - progress.epoch)
        for epoch in range(progress.epoch, phase.epochs.stop):
            if progress.step is None and not self._begin_epoch(phase, epoch):
                break
            self.epochs.run(phase, epoch)
        progress.end_phase()

    def _enter(self, phase: Phase) -> None:
        training, recipe = self.training, self.context.recipe
        training.runner = None
        schedule = phase.schedule or build_schedule(recipe.schedule, recipe.epochs)
        self.context.schedule = timed(schedule, self.context.steps)
        if phase.enter is not None:
            with self.timer.section("enter"):
                phase.enter(self.context)
        training.progress.begin_phase(phase.name, phase.epochs.start)
        training.begin_average()
        training.make_runner(phase.optimizer, phase.epochs.start)

    def _begin_epoch(self, phase: Phase, epoch: int) -> bool:
        """Ask the method and handle requests. Return False if the phase ends here."""
        self.training.stop.check_owned()
        with self.saver.between_epochs():
            self._ask_method(phase, epoch)
            if phase.until is not None and phase.until():
                return False
        self.training.progress.begin_epoch(self.timer.by_section())
        self.saver.handle_requests()
        return True

    def _ask_method(self, phase: Phase, epoch: int) -> None:
        """Call the method's hook before an epoch, and apply its transition."""
        with self.timer.section("method"):
            transition = self.method.on_epoch_start(self.context, epoch)
        self._apply(transition, phase, epoch)
        self._ask_between_steps(phase, epoch)

    def _ask_between_steps(self, phase: Phase, epoch: int) -> None:
        """Call the method's hook if an interval of steps is over, and apply its transition."""
        progress = self.training.progress
        steps = progress.trained * self.training.batches.steps + (progress.step or 0)
        if self.method.interval is None or steps == 0 or steps % self.method.interval:
            return
        with self.timer.section("method"):
            transition = self.method.on_interval(self.context, steps)
        self._apply(transition, phase, epoch)

    def _apply(self, transition: Transition | None, phase: Phase, epoch: int) -> None:
        """Rebuild the runner for a model that the method has changed."""
        if transition is None:
            return
        training = self.training
        if training.world.is_first:
            keep_before_switch(self.saver.folder)
        self.context.schedule = transition.schedule or self.context.schedule
        if training.average is not None:
            training.average.follow(self.context.model)
        training.make_runner(phase.optimizer, epoch)
        training.loggers.message(transition.reason)
