"""The stable rank ‖W‖_F² / σ₁² (paper, section 3.3).

σ₁² is the largest eigenvalue of W·Wᵀ. Lanczos' method finds it by products with W and Wᵀ, some twenty of each
for a trained weight and some fifty for a random one, and stops when the residual proves that an eigenvalue is
near enough. Where the largest ones are too close for that, and for small or float64 matrices, all eigenvalues
of the smaller Gram matrix are computed.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.matrix import gram, power_of_two
from cuttlefish.lowrank.threads import side_by_side

SMALL = 128
"""Smaller side up to which all eigenvalues of the Gram matrix are computed."""
STEPS = 96
"""Lanczos steps at most: more products cost more than the Gram matrix."""
CHECK = 4
"""Lanczos steps between two looks at the residual."""
CERTAIN = 5e-7
"""Relative error of σ₁² that is accepted."""
MODERATE = (1e-6, 1e6)
"""‖W‖_F whose fourth power float32 holds."""
CHUNK = 64
"""Squares that are summed in float32 before float64 takes over: so few lose nothing."""
TINY = torch.finfo(torch.float32).tiny


def stable_rank(weight: Tensor) -> float:
    """Return ‖W‖_F² / σ₁² of the weight unrolled to (dim 0) × (the rest).

    It is 0 for a zero matrix and NaN for one that is not finite, as are the other measures. Its relative
    error is below 1e-6 at any scale; where all singular values agree to a few 1e-6 (an orthogonal float32
    matrix), the value is within their spread. The same matrix gives the same value at every call, with any
    number of threads.
    """
    return stable_ranks([weight])[0]


def stable_ranks(weights: Sequence[Tensor]) -> list[float]:
    """Return the stable rank of each weight, computed where the weights are."""
    matrices = [_matrix(weight.detach()) for weight in weights]
    if all(matrix.is_cpu for matrix in matrices):
        return list(side_by_side(_ratio, ((matrix,) for matrix in matrices)))
    return [_ratio(matrix) for matrix in matrices]


def _matrix(weight: Tensor) -> Tensor:
    """Return the m × n matrix, its columns in the order in which they lie in memory."""
    if weight.ndim < 2 or weight.numel() == 0:
        raise CuttlefishError(f"a weight of shape {list(weight.shape)} is no matrix that has a stable rank")
    if weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last):
        weight = weight.permute(0, 2, 3, 1)
    return weight.flatten(1)


def _ratio(matrix: Tensor) -> float:
    if matrix.dtype != torch.float64 and min(matrix.shape) > SMALL:
        single = matrix.float()
        norm = _norm(single)
        top = _by_lanczos(single) if MODERATE[0] < norm < MODERATE[1] else None
        if top is not None:
            return norm**2 / top
    energy, top = _by_gram(matrix)
    return energy / top if top > 0 else energy


def _norm(matrix: Tensor) -> float:
    """Return ‖W‖_F of a float32 matrix, as exact as in float64 and several times as fast."""
    parts = matrix.reshape(-1, CHUNK if matrix.numel() % CHUNK == 0 else 1)
    return torch.linalg.vector_norm(parts, dim=1).double().square().sum().sqrt().item()


def _by_lanczos(matrix: Tensor) -> float | None:
    """Return σ₁² of a float32 matrix, or None where it does not come out in time.

    The residual proves that an eigenvalue is there. It is the largest one unless the start is orthogonal to
    that one's vector, which a random vector is not. Rounding is caught by a second way to the same number.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.t()
    basis = wide.new_empty(STEPS + 1, wide.shape[0])
    basis[0] = _start(wide.shape[0])
    diagonal, beside = [], []
    for step in range(1, STEPS + 1):
        known = basis[:step]
        image = wide @ (basis[step - 1] @ wide)
        along = known @ image
        image = torch.addmv(image, known.t(), along, alpha=-1)
        image = torch.addmv(image, known.t(), known @ image, alpha=-1)  # once is not orthogonal enough
        diagonal.append(along[-1])
        beside.append(torch.linalg.vector_norm(image))
        torch.div(image, beside[-1], out=basis[step])
        if step % CHECK == 0:
            found = _top_of(torch.stack([*diagonal, *beside]))
            if found.residual <= CERTAIN * found.value:
                return _confirmed(found, basis, wide)
    return None


class Top(NamedTuple):
    """The largest eigenvalue of W·Wᵀ on the basis, how far from an eigenvalue of W·Wᵀ it is at most, how far
    the next one lies below it, and its vector in the basis."""

    value: float
    residual: float
    gap: float
    vector: Tensor


def _top_of(numbers: Tensor) -> Top:
    """numbers: the diagonal of the tridiagonal matrix, then what stands beside it, the last one outside."""
    diagonal, beside = numbers.double().cpu().reshape(2, -1)
    closed = (beside <= CERTAIN * diagonal.nan_to_num().max()).nonzero()
    if len(closed):  # the vectors up to here span all that the start reaches; rounding made the next ones
        diagonal, beside = diagonal[: closed[0] + 1], beside[: closed[0] + 1]
    values, vectors = torch.linalg.eigh(diagonal.diag() + beside[:-1].diag(-1))
    top, second = values[-1].item(), values[-2].item() if len(values) > 1 else 0.0
    return Top(top, abs((beside[-1] * vectors[-1, -1]).item()), top - second, vectors[:, -1])


def _confirmed(found: Top, basis: Tensor, wide: Tensor) -> float | None:
    """Return ‖Wᵀv‖² / ‖v‖² in float64, or None if the steps were too inexact for it to be σ₁².

    It differs from σ₁² by the steps' rounding error at most, and by its square over the gap.
    """
    vector = found.vector.to(basis.device) @ basis[: len(found.vector)].double()
    direct = float((vector @ wide.double()).norm() / vector.norm()) ** 2
    error = abs(direct - found.value)
    return direct if min(error, error**2 / max(found.gap, TINY)) <= CERTAIN * direct else None


@cache
def _start(size: int) -> Tensor:
    """Return the same random unit vector at every call."""
    start = torch.randn(size, generator=torch.Generator("cpu").manual_seed(2023), device="cpu")
    return start / start.norm()


def _by_gram(matrix: Tensor) -> tuple[float, float]:
    """Return ‖W‖_F² and σ₁², both of the weight times one power of two."""
    exact = matrix.double() * power_of_two(matrix)
    energy = exact.square().sum()
    return energy.item(), torch.linalg.eigvalsh(gram(exact).nan_to_num())[-1].item()
