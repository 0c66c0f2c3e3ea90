"""Automatic low-rank training in any loop."""

from cuttlefish.auto.core import Cuttlefish
from cuttlefish.auto.switch import EpochReport

__all__ = ["Cuttlefish", "EpochReport"]
