"""Stable rank (paper, section 3.3) from σ₁ and ‖W‖_F alone: no full SVD, one transfer for any number of layers.

σ₁² is a Rayleigh-Ritz value of W·Wᵀ: the Gram matrix is squared a few times, which separates the top of its spectrum even
where there is no gap (random initialisation); a small random block is drawn into that subspace and orthonormalised; the
top eigenvalue of the projection of W itself is then exact to the square of the subspace's error. Only matrix products.
"""

from collections.abc import Iterable, Sequence
from math import ceil, floor

import torch
from torch import Tensor, nn

BLOCK = 32
SQUARINGS = 6


def stable_rank(weight: Tensor) -> float:
    """‖W‖_F² / σ₁² of the weight unrolled to (dim 0) × (the rest); 0 for a zero matrix.

    Relative error below 1e-6; where all singular values agree to a few 1e-6 (an orthogonal float32 matrix), within their spread.
    """
    return stable_ranks([weight])[0]


def full_rank(weight: Tensor) -> int:
    """min(rows, columns) of the same matrix."""
    return min(weight.shape[0], weight[0].numel())


@torch.no_grad()
def stable_ranks(weights: Sequence[Tensor]) -> list[float]:
    """The stable rank of each weight, computed where the weights are and brought over in one transfer."""
    if not weights:
        return []
    projections = torch.stack([_projected_gram(weight.detach().flatten(1)) for weight in weights])
    energies = torch.stack(
        [torch.linalg.vector_norm(weight.detach(), dtype=torch.float64) ** 2 for weight in weights]
    )
    packed = torch.cat([projections.flatten(), energies]).cpu()
    if not torch.isfinite(packed).all():
        return [float("nan")] * len(weights)
    top = torch.linalg.eigvalsh(packed[: projections.numel()].view_as(projections))[:, -1]
    return [
        energy / value if value > 0 else 0.0
        for energy, value in zip(packed[projections.numel() :].tolist(), top.tolist(), strict=True)
    ]


def scaled_rank(
    stable: float,
    initial: float,
    full: int,
    *,
    floored: bool = False,
    rank_floor: float = 0.0,
    round_to: int = 1,
) -> int:
    """r = min(⌈β·s⌉, R) with β = R / s(0) (section 3.3), at least max(1, ⌊rank_floor·R⌋), rounded up to a multiple.

    floored: truncate both stable ranks to integers first, as the reference's code does.
    """
    if floored:
        stable, initial = max(floor(stable), 1), max(floor(initial), 1)
    if initial <= 0:
        return clamp_rank(1, full, rank_floor, round_to)
    # The tiny allowance keeps float noise from lifting an exact R·s/s(0) over the next integer.
    return clamp_rank(ceil(full * stable / initial - 1e-9 * full), full, rank_floor, round_to)


def clamp_rank(rank: int, full: int, rank_floor: float = 0.0, round_to: int = 1) -> int:
    lowest = max(1, floor(rank_floor * full))
    return min(full, ceil(max(rank, lowest) / round_to) * round_to)


class RankTracker:
    """Stable ranks of a model's layers over the epochs; the first update gives s(0), hence β (section 3.3).

    layers: dotted names, each a module with a `weight`. history[layer] lists one stable rank an update.
    """

    def __init__(self, model: nn.Module, layers: Iterable[str]):
        self.weights = {name: model.get_submodule(name).weight for name in layers}
        self.full = {name: full_rank(weight) for name, weight in self.weights.items()}
        self.history: dict[str, list[float]] = {name: [] for name in self.weights}

    def update(self) -> dict[str, float]:
        ranks = dict(zip(self.weights, stable_ranks(list(self.weights.values())), strict=True))
        for name, rank in ranks.items():
            self.history[name].append(rank)
        return ranks

    def scaled_ranks(
        self, *, floored: bool = False, rank_floor: float = 0.0, round_to: int = 1
    ) -> dict[str, int]:
        """The rank of each layer at its latest update, scaled by its β."""
        return {
            name: scaled_rank(
                values[-1],
                values[0],
                self.full[name],
                floored=floored,
                rank_floor=rank_floor,
                round_to=round_to,
            )
            for name, values in self.history.items()
        }

    def stable_ranks(self, *, rank_floor: float = 0.0, round_to: int = 1) -> dict[str, int]:
        """The unscaled alternative: ⌈s⌉, bounded likewise."""
        return {
            name: clamp_rank(ceil(values[-1]), self.full[name], rank_floor, round_to)
            for name, values in self.history.items()
        }

    def rows(self) -> list[dict[str, object]]:
        """The latest update as rows: epoch (updates before it), layer, stable_rank, scaled_rank, full_rank."""
        scaled = self.scaled_ranks()
        return [
            {
                "epoch": len(values) - 1,
                "layer": name,
                "stable_rank": values[-1],
                "scaled_rank": scaled[name],
                "full_rank": self.full[name],
            }
            for name, values in self.history.items()
        ]


def _projected_gram(matrix: Tensor) -> Tensor:
    """BLOCK × BLOCK matrix (float64) whose top eigenvalue is σ₁² of `matrix` (m × n)."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.t()
    exact = wide.double()
    if wide.shape[0] > BLOCK:
        # The subspace may be found in float32, its error counts squared; on a GPU that would be TF32, too coarse.
        coarse = exact if wide.is_cuda else wide.float()
        exact = _top_subspace(coarse @ coarse.t()).t() @ exact
    gram = exact @ exact.t()
    return nn.functional.pad(gram, (0, BLOCK - gram.shape[0]) * 2)


def _top_subspace(gram: Tensor) -> Tensor:
    """Orthonormal block (m × BLOCK, float64) spanning the dominant eigenvectors of a Gram matrix (m × m)."""
    smallest = torch.finfo(gram.dtype).tiny
    for _ in range(SQUARINGS):
        gram = gram / torch.linalg.matrix_norm(gram).clamp_min(smallest)
        gram = gram @ gram
    start = torch.randn(gram.shape[0], BLOCK, generator=torch.Generator().manual_seed(0), dtype=gram.dtype)
    return torch.linalg.qr((gram @ start.to(gram.device)).double()).Q
