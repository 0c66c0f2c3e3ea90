"""The knobs of SI&FD."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from cuttlefish.limits import Checked, Within
from cuttlefish.methods.target import Match, TargetSize, one_size


@dataclass(frozen=True)
class Settings(Checked):
    """rho: ρ, the rank as a fraction of c_out·k1. target_params, match: a size from which ρ is found instead.

    frobenius_decay: λ of the factors; 0 is ordinary weight decay. decay_all: L2 on norms and biases too, as
    in the original.
    """

    rho: Annotated[float, Within(0, 1, "(]")] = 0.08
    target_params: TargetSize = None
    match: Match = None
    frobenius_decay: Annotated[float, Within(0, 1000)] = 1e-4
    decay_all: bool = False

    def contradictions(self) -> Iterator[str]:
        yield from one_size(self)  # rho has per-network presets and is ignored if a size is given
