"""Automatic low-rank training: `import cuttlefish` gives the library; the suite around it starts at run.py.

The public names are imported on first use, so that reading a config or a record does not import torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "apply": "cuttlefish.compression.plan",
    "compress": "cuttlefish.compression.compress",
    "explain": "cuttlefish.compression.explain",
    "load": "cuttlefish.compression.files",
    "plan": "cuttlefish.compression.plan",
    "save": "cuttlefish.compression.files",
    "will_it_pay": "cuttlefish.compression.pays",
    "EpochReport": "cuttlefish.auto.switch",
    "Cuttlefish": "cuttlefish.auto",
    "CuttlefishError": "cuttlefish.errors",
    "FrobeniusDecay": "cuttlefish.lowrank.decay",
    "LowRankConv2d": "cuttlefish.lowrank.layers",
    "LowRankLinear": "cuttlefish.lowrank.layers",
    "RankTracker": "cuttlefish.lowrank.rank",
    "effective_rank": "cuttlefish.lowrank.rank.measures",
    "energy_rank": "cuttlefish.lowrank.rank.measures",
    "StabilityTest": "cuttlefish.lowrank.stability",
    "StackProfile": "cuttlefish.lowrank.profiling",
    "densify": "cuttlefish.lowrank.surgery",
    "factorize": "cuttlefish.lowrank.surgery",
    "full_rank": "cuttlefish.lowrank.matrix",
    "profile_stacks": "cuttlefish.lowrank.profiling",
    "stable_rank": "cuttlefish.lowrank.rank",
}
__all__ = sorted(_HOMES)  # pyright: ignore


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cuttlefish' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
