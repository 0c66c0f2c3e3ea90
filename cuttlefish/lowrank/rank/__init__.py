"""The ranks of a model's layers: measured, followed over the epochs, scaled to those of the factors."""

from cuttlefish.lowrank.matrix import full_rank
from cuttlefish.lowrank.rank.stable import stable_rank, stable_ranks
from cuttlefish.lowrank.rank.tracker import RankTracker, clamp_rank, scaled_rank

__all__ = ["RankTracker", "clamp_rank", "full_rank", "scaled_rank", "stable_rank", "stable_ranks"]
