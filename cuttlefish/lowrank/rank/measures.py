"""Measures of a matrix's rank: stable rank, effective rank, the rank that holds an energy."""

from collections.abc import Callable

import torch
from torch import Tensor

from cuttlefish.lowrank.matrix import full_rank, power_of_two
from cuttlefish.lowrank.rank.stable import stable_rank


def effective_rank(weight: Tensor) -> float:
    """Return exp(−Σ pᵢ·ln pᵢ) with pᵢ = σᵢ / Σσ (Roy and Vetterli, 2007)."""
    sigma = singular_values(weight)
    total = sigma.sum()
    if not total > 0:
        return total.item()
    shares = sigma / total
    return torch.special.entr(shares).sum().exp().item()


def energy_rank(weight: Tensor, share: float = 0.9) -> float:
    """Return the smallest r with σ₁² + … + σᵣ² ≥ share · ‖W‖_F²."""
    energies = singular_values(weight) ** 2
    total = energies.sum()
    if not total > 0:
        return total.item()
    return float(min(1 + int((energies.cumsum(0) < share * total).sum()), len(energies)))


def singular_values(weight: Tensor) -> Tensor:
    """Return the singular values, up to a power of two, in float64 on the CPU; NaN if W is not finite."""
    exact = weight.detach().flatten(1).cpu().double()
    if not exact.isfinite().all():
        return torch.full((full_rank(weight),), float("nan"), dtype=torch.float64, device="cpu")
    return torch.linalg.svdvals(exact * power_of_two(exact))


MEASURES: dict[str, Callable[[Tensor], float]] = {
    "stable": stable_rank,
    "entropy": effective_rank,
    "energy": energy_rank,
}
"""The measures of a matrix's rank that have a name."""
