"""Which layers are worth factorizing, by timing them."""

from cuttlefish.lowrank.profiling.stacks import Stack, StackProfile, block_name, profile_stacks

__all__ = ["Stack", "StackProfile", "block_name", "profile_stacks"]
