"""The knobs of full-rank training."""

from collections.abc import Iterator
from dataclasses import dataclass

from cuttlefish.limits import Checked
from cuttlefish.methods.interval import Interval
from cuttlefish.methods.target import Match


@dataclass(frozen=True)
class Settings(Checked):
    """track_ranks: Record the stable rank of every main-path layer before each epoch.

    interval: Record them before each so many optimizer steps instead, as fine-tuning needs, which has few
    epochs. match: A finished run; train only as many epochs as fit into its compute seconds, the schedule
    over these.
    """

    track_ranks: bool = False
    interval: Interval = None
    match: Match = None

    def contradictions(self) -> Iterator[str]:
        if self.interval is not None and not self.track_ranks:
            yield "interval is the number of steps between ranks; set track_ranks=true too"
