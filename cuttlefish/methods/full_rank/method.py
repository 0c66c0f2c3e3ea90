"""Full-rank training: the empty method, which can record ranks during training (Figures 2 and 3)."""

from collections.abc import Iterator
from typing import Any

from cuttlefish.config.recipe import RecipeConfig
from cuttlefish.lowrank.path import main_path
from cuttlefish.lowrank.rank import RankTracker
from cuttlefish.methods.base import Context, Method, Phase
from cuttlefish.methods.budget import dense_epochs_within
from cuttlefish.methods.full_rank.settings import Settings
from cuttlefish.methods.interval import as_epochs, check_interval
from cuttlefish.methods.schedule import build_schedule


class FullRank(Method):
    name = "full_rank"
    no_fork = ""
    Settings = Settings
    tracker: RankTracker | None = None
    epochs: int | None = None
    """The epochs that fit into the matched run's time."""

    def __init__(self, settings: Any):
        super().__init__(settings)
        self.interval = settings.interval

    @classmethod
    def planned_epochs(cls, settings: Any, recipe: RecipeConfig) -> int | None:
        return recipe.epochs if settings.match is None else None

    def prepare(self, context: Context) -> None:
        if self.settings.match is not None:
            kept = context.saved().get("epochs")  # even if the matched run changed since
            self.epochs = kept or dense_epochs_within(self.settings.match, context.recipe.epochs)[0]
        check_interval(self.interval, (self.epochs or context.recipe.epochs) * context.steps)

    def phases(self, context: Context) -> Iterator[Phase]:
        if self.epochs is None:
            yield from super().phases(context)
        else:
            schedule = build_schedule(context.recipe.schedule, self.epochs)
            yield Phase("train", range(self.epochs), schedule=schedule)

    def on_fit_start(self, context: Context) -> None:
        if self.settings.track_ranks:
            inputs = context.example_batch().inputs
            self.tracker = RankTracker(
                context.model, [layer.name for layer in main_path(context.model, inputs)]
            )

    def on_epoch_start(self, context: Context, epoch: int) -> None:
        if self.tracker is not None and (self.interval is None or epoch == 0):
            self._track(context, epoch)

    def on_interval(self, context: Context, steps: int) -> None:
        self._track(context, as_epochs(steps, context.steps))

    def _track(self, context: Context, epoch: float) -> None:
        with context.section("tracking"):
            self.tracker.update()
        context.log_ranks([row | {"epoch": epoch} for row in self.tracker.rows()])

    def state_dict(self) -> dict[str, Any]:
        tracker = self.tracker
        state = {} if self.epochs is None else {"epochs": self.epochs}
        return state if tracker is None else state | {"history": tracker.history, "metric": tracker.metric}

    def load_state_dict(self, context: Context, state: dict[str, Any]) -> None:
        self.on_fit_start(context)
        if self.tracker is not None and "history" in state:
            self.tracker.history = {name: list(values) for name, values in state["history"].items()}
