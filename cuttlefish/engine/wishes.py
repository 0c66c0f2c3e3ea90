"""What processes want between two steps: the highest wish of all is granted to all."""

from cuttlefish.engine.distributed import World
from cuttlefish.errors import TakenOver
from cuttlefish.process.signals import StopSignals

NOTHING, SAVE, STOP, LEAVE = range(4)
"""STOP: save and stop. LEAVE: stop and save nothing, since another process has the run now."""


def granted(stop: StopSignals, world: World, wish: int = NOTHING) -> int:
    """To be called by all processes. wish: this one's, unless it was asked to stop. Raises TakenOver if one has to leave."""
    if stop.requested:
        wish = STOP if stop.owned() else LEAVE
    highest = world.highest(wish)
    if highest == LEAVE:
        raise TakenOver
    return highest
