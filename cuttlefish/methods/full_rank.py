"""Full-rank training: the empty method, which can record ranks during training (Figures 2 and 3)."""

from dataclasses import dataclass
from typing import Any

from cuttlefish.limits import Checked
from cuttlefish.lowrank.profiling import main_path
from cuttlefish.lowrank.rank import RankTracker
from cuttlefish.methods.base import Context, Method


class FullRank(Method):
    name = "full_rank"
    no_fork = ""

    @dataclass(frozen=True)
    class Settings(Checked):
        """track_ranks: Record the stable rank of every main-path layer before each epoch."""

        track_ranks: bool = False

    tracker: RankTracker | None = None

    def on_fit_start(self, context: Context) -> None:
        if self.settings.track_ranks:
            inputs = context.example_batch().inputs
            self.tracker = RankTracker(
                context.model, [layer.name for layer in main_path(context.model, inputs)]
            )

    def on_epoch_start(self, context: Context, epoch: int) -> None:
        if self.tracker is not None:
            with context.section("tracking"):
                self.tracker.update()
            context.log_ranks(self.tracker.rows())

    def state_dict(self) -> dict[str, Any]:
        tracker = self.tracker
        return {"history": tracker.history, "metric": tracker.metric} if tracker is not None else {}

    def load_state_dict(self, context: Context, state: dict[str, Any]) -> None:
        self.on_fit_start(context)
        if self.tracker is not None and "history" in state:
            self.tracker.history = {name: list(values) for name, values in state["history"].items()}
