"""When the state of a run is saved, and when the run ends between two steps because a stop was requested."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from torch import Tensor

from cuttlefish.engine.failures import check_loss, check_weights
from cuttlefish.engine.saving.checkpoint import save_checkpoint
from cuttlefish.engine.timer import CheckpointTimer
from cuttlefish.engine.training import Training
from cuttlefish.errors import Interrupted
from cuttlefish.process.signals import Request, State
from cuttlefish.tasks.base import Batch


class Saver:
    """Write the checkpoints of a run in training.

    Attributes:
        folder: The folder of checkpoints.
        saved: Number of trained epochs in the newest one.
    """

    def __init__(self, training: Training):
        self.training = training
        self.timer = CheckpointTimer(training.config)
        self.folder: Path = training.context.folder / "checkpoints"
        self.saved = 0

    def between_epochs(self) -> AbstractContextManager[None]:
        """Wrap code that may change the model, which can take a minute (decompositions, compilation).

        A stop request aborts it at once if all trained epochs are saved and there is one process; the resumed
        run then repeats it.
        """
        trained = self.training.progress.trained
        if self.training.world.processes > 1 or self.saved != trained:
            return nullcontext()
        return self.training.stop.within(State.SAVED if trained else State.UNTRAINED)

    def after_epoch(self, last: bool) -> None:
        """Save after an epoch, if it is the `last` of its phase or a checkpoint is due."""
        due = last or self.timer.due_after_epoch(self.training.progress.trained)
        if self.training.world.all_reduce_max(due):
            self.save()

    def handle_requests(self, sums: Tensor | None = None) -> None:
        """Save, or save and stop, between two steps, if any process requests it.

        Args:
            sums: This process's sums of the current epoch, if it has begun.

        Raises:
            Interrupted: A stop was requested, and the state is saved.
        """
        training = self.training
        wanted = Request.SAVE if self.timer.due_within_epoch() else Request.NOTHING
        agreed = training.stop.agreed(training.world.all_reduce_max, wanted)
        if agreed is Request.NOTHING:
            return
        if sums is not None:
            training.progress.sums = training.world.sum(sums.clone()).tolist()
        self.save_within_epoch()
        if agreed is Request.SAVE_AND_STOP:
            raise self._stopped()

    def until_stopped(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield batches until a stop is requested. Raises Interrupted; nothing is saved."""
        for batch in batches:
            yield batch
            agreed = self.training.stop.agreed(self.training.world.all_reduce_max)
            if agreed is Request.SAVE_AND_STOP:
                raise self._stopped()

    def save_within_epoch(self) -> None:
        """Save between two steps. Raises CuttlefishError if training has diverged."""
        self.check_finite(self.training.progress.sums[0])
        self.training.timer.collect()
        self.save()

    def check_finite(self, loss: float) -> None:
        """Raise CuttlefishError if the epoch's loss or a weight is not finite."""
        model, epoch = self.training.context.model, self.training.progress.trained + 1
        check_loss(loss, model, epoch)
        check_weights(model, epoch)

    def save(self) -> None:
        training, progress = self.training, self.training.progress
        with training.timer.section("checkpoint"):
            state = training.state_dict()
            if training.world.is_first:
                training.stop.check_owned()
                training.loggers.settle()
                save_checkpoint(self.folder, progress.trained, state, progress.step)
        self.saved = progress.trained
        self.timer.saved(whole=progress.step is None)

    def _stopped(self) -> Interrupted:
        by, progress = self.training.stop.requested, self.training.progress
        where = f"in epoch {progress.trained + 1} after step {progress.step} of {self.training.batches.steps}"
        who = by or "another process"
        return Interrupted(f"stopped by {who} {where}, state saved; the same command goes on", by)
