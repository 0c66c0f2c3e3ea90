"""Automatic low-rank training: `import cuttlefish` gives the library; the suite around it starts at run.py.

The public names are imported on first use, so that reading a config or a record does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
__all__ = sorted(_HOMES)  # pyrefly: ignore[unresolvable-dunder-all]

if TYPE_CHECKING:
    from cuttlefish.auto import Cuttlefish as Cuttlefish
    from cuttlefish.auto.switch import EpochReport as EpochReport
    from cuttlefish.compression.compress import compress as compress
    from cuttlefish.compression.explain import explain as explain
    from cuttlefish.compression.files import load as load
    from cuttlefish.compression.files import save as save
    from cuttlefish.compression.pays import will_it_pay as will_it_pay
    from cuttlefish.compression.plan import apply as apply
    from cuttlefish.compression.plan import plan as plan
    from cuttlefish.errors import CuttlefishError as CuttlefishError
    from cuttlefish.lowrank.decay import FrobeniusDecay as FrobeniusDecay
    from cuttlefish.lowrank.layers import LowRankConv2d as LowRankConv2d
    from cuttlefish.lowrank.layers import LowRankLinear as LowRankLinear
    from cuttlefish.lowrank.matrix import full_rank as full_rank
    from cuttlefish.lowrank.profiling import StackProfile as StackProfile
    from cuttlefish.lowrank.profiling import profile_stacks as profile_stacks
    from cuttlefish.lowrank.rank import RankTracker as RankTracker
    from cuttlefish.lowrank.rank import stable_rank as stable_rank
    from cuttlefish.lowrank.rank.measures import effective_rank as effective_rank
    from cuttlefish.lowrank.rank.measures import energy_rank as energy_rank
    from cuttlefish.lowrank.stability import StabilityTest as StabilityTest
    from cuttlefish.lowrank.surgery import densify as densify
    from cuttlefish.lowrank.surgery import factorize as factorize


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cuttlefish' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
