"""Mathematics of LC: C step, multipliers, penalty, α for a target size, and the budget.

Notation of the LC papers: A = w - λ/μ is an m × n matrix with singular values s_1 >= s_2 >= …, Δ its best
approximation of the learned rank r, c = α·(m + n)·(multiplier) the price of one rank, N = ‖A‖² if costs are
normalised by the layer, else 1.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from cuttlefish.errors import CuttlefishError


class Spectrum(NamedTuple):
    """s_j² in descending order (float64), ‖A‖² = Σ s_j², and the smaller side's singular vectors."""

    squares: Tensor
    energy: float
    vectors: Tensor

    @property
    def stable_rank(self) -> float:
        return self.energy / float(self.squares[0]) if self.squares[0] > 0 else 0.0

    def worth(self, mu: float, normalize: bool) -> Tensor:
        """Return the saving from keeping each singular value, μ·s_j² / 2N; it is kept above its price."""
        scale = self.energy if normalize else 1.0
        return self.squares * (mu / (2 * scale)) if scale > 0 else torch.zeros_like(self.squares)


class CStep(NamedTuple):
    rank: int
    delta: Tensor


@dataclass(frozen=True)
class Layer:
    """Cost of a layer's m × n weight: a rank takes (m + n) numbers, each charged `multiplier` times."""

    m: int
    n: int
    multiplier: float = 1.0

    @property
    def unit(self) -> float:
        return (self.m + self.n) * self.multiplier

    @property
    def full_rank(self) -> int:
        return min(self.m, self.n)

    def parameters(self, rank: int) -> int:
        """Return the numbers stored at this rank: factors only if these are fewer; rank 0 is stored as 1."""
        return min(max(rank, 1) * (self.m + self.n), self.m * self.n)


@torch.no_grad()
def spectrum(matrix: Tensor) -> Spectrum:
    """Return the spectrum from the Gram matrix of the smaller side in float64: enough for the C step."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.t()
    exact = wide.detach().double()
    if not exact.isfinite().all():
        raise CuttlefishError("the C step met NaN or infinite weights: lower the learning rate or mu_last")
    gram = exact @ exact.t()
    with _one_thread():
        values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0), vectors.flip(1)
    noise = values[0].clamp_min(0) * len(values) * torch.finfo(values.dtype).eps
    return Spectrum(values.where(values > noise, 0.0), float(exact.square().sum()), vectors)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: a second gains nothing here, and beside a busy process threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def learned_rank(found: Spectrum, *, mu: float, price: float, normalize: bool = True) -> int:
    """Return r* = #{j : μ·s_j² / 2N > c}, the minimiser of α·C(r) + (μ/2)·Σ_{j>r} s_j² / N.

    Ties go to the smaller rank. A zero matrix has rank 0 (the original's 0/0 selects full rank); so has any
    at μ = 0.
    """
    return int((found.worth(mu, normalize) > price).sum())


@torch.no_grad()
def truncate(matrix: Tensor, found: Spectrum, rank: int) -> Tensor:
    """Return Δ = P_r·P_rᵀ·A, of the same dtype and on the same device."""
    # TF32 would be too coarse for Δ, and float64 costs a GPU little.
    exact = matrix.double() if matrix.is_cuda else matrix
    wide = exact if matrix.shape[0] <= matrix.shape[1] else exact.t()
    kept = found.vectors[:, :rank].to(wide.dtype)
    delta = kept @ (kept.t() @ wide)
    return (delta if wide is exact else delta.t()).to(matrix.dtype)


def c_step(
    matrix: Tensor, *, mu: float, alpha: float, multiplier: float = 1.0, normalize: bool = True
) -> CStep:
    """Return the C step in closed form: rank and Δ that minimise α·r·(m + n)·multiplier + (μ/2)·‖A - Δ‖² / N.

    Args:
        matrix: A = w - λ/μ (A = w at μ = 0), m × n.
        alpha: Price per parameter (multiplier 1) or multiply-accumulate.
    """
    found = spectrum(matrix)
    rank = learned_rank(
        found, mu=mu, price=alpha * Layer(*matrix.shape, multiplier).unit, normalize=normalize
    )
    return CStep(rank, truncate(matrix, found, rank))


def shifted(weight: Tensor, multipliers: Tensor, mu: float) -> Tensor:
    """Return A, the input of the C step: w - λ/μ, or w at μ = 0."""
    return weight - multipliers / mu if mu else weight


def next_multipliers(multipliers: Tensor, weight: Tensor, delta: Tensor, mu: float) -> Tensor:
    """Return λ - μ(w - Δ)."""
    return multipliers - mu * (weight - delta)


def penalty_shift(delta: Tensor, multipliers: Tensor, mu: float) -> Tensor:
    """Return μΔ + λ: the L step's penalty (μ/2)·‖w - (Δ + λ/μ)‖² has the gradient μw minus this."""
    return mu * delta + multipliers


def alpha_for(
    wanted: int,
    dense: int,
    layers: Mapping[str, Layer],
    spectra: Mapping[str, Spectrum],
    *,
    mu: float,
    normalize: bool = True,
) -> float:
    """Return the α with which these spectra give, at the final μ, the size nearest to `wanted` parameters.

    This is a prediction: ranks learned later are somewhat lower, because training moves mass into the kept
    directions.

    Args:
        dense: Parameters of the dense model.
    """
    worths = {
        name: (spectra[name].worth(mu, normalize) / layer.unit).tolist() for name, layer in layers.items()
    }
    every = sorted({value for values in worths.values() for value in values if value > 0}, reverse=True)
    if not every:
        zero = "every weight that could be compressed is zero"
        raise CuttlefishError(f"{zero}, so there is no α that gives it a size")
    # Ranks are constant between two neighbours of `every`, so one α per interval suffices.
    between = [sqrt(high * low) for high, low in pairwise(every)]
    choices = [every[0] * 2, *between, every[-1] / 2]

    def size(alpha: float) -> int:
        ranks = {name: sum(value > alpha for value in values) for name, values in worths.items()}
        return compressed(dense, layers, ranks)

    first = min(bisect_left(choices, wanted, key=size), len(choices) - 1)
    return min(choices[max(first - 1, 0) : first + 1], key=lambda alpha: abs(size(alpha) - wanted))


def compressed(dense: int, layers: Mapping[str, Layer], ranks: Mapping[str, int]) -> int:
    """Return the parameter count of a model of `dense` parameters with these ranks in these layers."""
    return dense - sum(layer.m * layer.n - layer.parameters(ranks[name]) for name, layer in layers.items())


def relative_errors(weights: Sequence[Tensor], deltas: Sequence[Tensor]) -> list[float]:
    """Return ‖w - Δ‖ / ‖w‖ of each layer, the remaining violation of the constraint."""
    if not weights:
        return []
    columns = torch._foreach_sub(list(weights), list(deltas)), list(weights)
    norms = [torch.stack(torch._foreach_norm(column)) for column in columns]
    return (norms[0] / norms[1].clamp_min(torch.finfo(norms[1].dtype).tiny)).tolist()
