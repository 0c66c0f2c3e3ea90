"""The rank that counts as a layer's first: β is that divided by its first stable rank (paper, section 3.3).

The paper starts from random weights, which use every direction: their rank is R, so β = R / s(0). A
pretrained weight's spectrum has decayed before training begins, a low-rank one's is cut off, and s(0) says
nothing about R: with β = R / s(0) all ranks would stay near R. What was tried: docs/pretrained.md.
"""

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from statistics import median

import torch
from torch import Tensor

from cuttlefish.lowrank.matrix import gram, power_of_two
from cuttlefish.lowrank.rank.stable import stable_rank, stable_ranks

ENERGY = 0.9
"""Share of ‖W(0)‖_F² that the first rank of a weight that is not random keeps."""
RANDOM = 0.5
"""A weight counts as random from this fraction of a Gaussian matrix's stable rank on."""


def first_ranks(
    rule: str, matrices: Mapping[str, Tensor], values: Mapping[str, float], measure: Callable[[Tensor], float]
) -> dict[str, float]:
    """Return the rank of each layer's first weight, by which β scales all later values.

    Args:
        rule: initial (R, the paper), random (R times the value over that of a Gaussian matrix of the shape),
            energy (the rank that keeps ENERGY of ‖W‖_F²), or auto: initial for random weights, energy for
            others. A layer is random if its stable rank and the median layer's are at least half of a
            Gaussian matrix's. (Zero weights have no energy: `RankTracker` takes them as Gaussian.)
        matrices: Layer → its first weight, m × n.
        values: Layer → its measure.
        measure: What was measured.
    """
    if rule == "auto":
        stable = values if measure is stable_rank else _stable(matrices)
        rules = _by_origin(matrices, stable)
    else:
        rules = dict.fromkeys(matrices, rule)
    full = {name: float(min(matrix.shape)) for name, matrix in matrices.items()}
    found = dict(full)
    for name, matrix in matrices.items():
        if rules[name] == "energy" and values[name] > 0:
            found[name] = float(rank_of_energy(matrix))
        elif rules[name] == "random" and values[name] > 0:
            usual = float(measure(gaussian(matrix.shape)))
            found[name] = min(full[name] * values[name] / usual, full[name])
    return found


@torch.no_grad()
def rank_of_energy(matrix: Tensor, share: float = ENERGY) -> int:
    """Return the smallest r whose best approximation of the m × n matrix keeps `share` of ‖W‖_F²."""
    exact = matrix.detach().double()
    energies = torch.linalg.eigvalsh(gram(exact * power_of_two(exact))).flip(0).clamp_min(0)
    return min(1 + int((energies.cumsum(0) < share * energies.sum()).sum()), len(energies))


def gaussian(shape: Sequence[int]) -> Tensor:
    """Return the same Gaussian matrix at every call."""
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(0), device="cpu")


def expected(shape: tuple[int, ...]) -> float:
    """Return m·n / (√m + √n)², the stable rank of a large m × n Gaussian matrix (Marchenko and Pastur)."""
    m, n = shape
    return m * n / (sqrt(m) + sqrt(n)) ** 2


def _stable(matrices: Mapping[str, Tensor]) -> dict[str, float]:
    return dict(zip(matrices, stable_ranks(list(matrices.values())), strict=True))


def _by_origin(matrices: Mapping[str, Tensor], stable: Mapping[str, float]) -> dict[str, str]:
    shares = {name: stable[name] / expected(matrix.shape) for name, matrix in matrices.items()}
    usual = median([share for share in shares.values() if share > 0] or [1.0])
    return {
        name: "initial" if min(share, usual) >= RANDOM or share == 0 else "energy"
        for name, share in shares.items()
    }
