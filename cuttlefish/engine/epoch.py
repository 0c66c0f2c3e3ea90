"""One epoch of training: its steps, its evaluation and its row."""

from collections.abc import Callable

import torch

from cuttlefish.engine.evaluate import Scores
from cuttlefish.engine.failures import check_loss
from cuttlefish.engine.saving.saver import Saver
from cuttlefish.engine.timer import first_steps
from cuttlefish.engine.training import Training
from cuttlefish.errors import Interrupted
from cuttlefish.methods.base import Phase


class EpochRunner:
    """Run the epochs of a run in training.

    Args:
        between_steps: Called with the phase and the epoch before every step but an epoch's first.
    """

    def __init__(self, training: Training, saver: Saver, between_steps: Callable[[Phase, int], None]):
        self.training, self.saver, self.between_steps = training, saver, between_steps

    def run(self, phase: Phase, epoch: int) -> None:
        """Train and evaluate one epoch, or the rest of it, report it, and save if a checkpoint is due."""
        training, last = self.training, epoch == phase.epochs.stop - 1
        training.runner.set_lr(training.context.schedule.lr(epoch))
        self.saver.timer.begin_epoch()
        trained = self._train(phase, epoch)
        try:
            tested = self._evaluate(last)
        except Interrupted:
            self.saver.save_within_epoch()  # only here has the method undone the changes of `evaluating`
            raise
        training.progress.end_epoch()
        training.stop.check_owned()
        self._report(phase, epoch, trained, tested)
        self.saver.after_epoch(last)

    def _train(self, phase: Phase, epoch: int) -> Scores:
        training, progress = self.training, self.training.progress
        sums = torch.zeros(3, dtype=torch.float64, device=training.context.device)
        if training.world.is_first:
            sums += torch.tensor(progress.sums, dtype=torch.float64, device=sums.device)
        label = f"{phase.name} {epoch + 1}/{phase.epochs.stop}"
        training.loggers.epoch_begin(training.batches.steps - progress.step, label)
        with (
            training.timer.section("data"),
            first_steps(training.config.torch_profile, training.context.folder) as profiled,
        ):
            for batch in training.batches.train(progress.trained, progress.step):
                if progress.step:
                    self.between_steps(phase, epoch)
                self._follow_schedule(epoch)
                training.runner.number = progress.trained * training.batches.steps + progress.step
                with training.timer.section("train"):
                    training.runner.step(batch, sums)
                    if training.average is not None:
                        training.average.update(training.context.model)
                training.loggers.step()
                profiled()
                progress.step += 1
                self.saver.handle_requests(sums)
        progress.sums = training.world.sum(sums).tolist()
        loss, correct, samples = progress.sums
        loss /= max(samples, 1)
        self.saver.check_finite(loss)
        is_regression = training.batches.task.classes is None
        return Scores(loss, {} if is_regression else {"accuracy": 100 * correct / max(samples, 1)})

    def _follow_schedule(self, epoch: int) -> None:
        """Set the step's learning rate, if the schedule has one for each step."""
        training = self.training
        if training.context.schedule.by_step:
            done = training.progress.step / training.batches.steps
            training.runner.set_lr(training.context.schedule.lr(epoch + done))

    def _evaluate(self, last: bool) -> Scores | None:
        training, saver, model = self.training, self.saver, self.training.context.model
        epoch = training.progress.trained + 1
        if not last and epoch % training.config.eval_epochs:
            return None
        training.world.broadcast_buffers(model)
        if training.average is not None:
            training.world.broadcast_buffers(training.average.module)
        with training.timer.section("evaluate"):
            found = training.evaluate(lambda split: saver.until_stopped(training.batches.evaluate(split)))
        check_loss(found.loss, model, epoch, "the evaluation's loss")
        return found

    def _report(self, phase: Phase, epoch: int, trained: Scores, tested: Scores | None) -> None:
        training, progress, timer = self.training, self.training.progress, self.training.timer
        timer.collect()
        task = training.batches.task
        if tested is not None:
            progress.count_best(tested.metrics, task.lower_is_better)
        progress.last = {
            "epoch": progress.trained,
            "phase": phase.name,
            "schedule_epoch": epoch,
            "lr": training.runner.lr,
            "train_loss": trained.loss,
            "train_accuracy": trained.accuracy,
            "test_loss": tested and tested.loss,
            "test_accuracy": tested and tested.accuracy,
            "metric": task.primary,
            "metrics": tested and tested.metrics,
            "params_total": sum(parameter.numel() for parameter in training.context.model.parameters()),
            "compute_seconds": timer.compute_seconds,
            "wall_seconds": timer.wall_seconds,
            "seconds": {
                part: seconds - progress.parts.get(part, 0.0) for part, seconds in timer.by_section().items()
            },
        }
        training.loggers.epoch(progress.last)
