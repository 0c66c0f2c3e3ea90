"""Is low rank worth it here? Training steps of the model on this device, at full rank and at a ratio."""

import copy
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.find import layer_of
from cuttlefish.lowrank.matrix import full_rank
from cuttlefish.lowrank.path import candidates, main_path
from cuttlefish.lowrank.surgery import factorize
from cuttlefish.lowrank.trace import Batch, Forward, call_model, first_tensor

WORTH = 1.05
"""Least speed-up that counts: below it lies what repeated measurements differ by."""


@dataclass(frozen=True)
class Payoff:
    """Median seconds of a forward and backward pass, and bytes: the device's peak; on a CPU, parameters."""

    ratio: float
    device: str
    full_seconds: float
    low_seconds: float
    full_bytes: int
    low_bytes: int

    @property
    def speedup(self) -> float:
        return self.full_seconds / self.low_seconds

    def __bool__(self) -> bool:
        """Whether a step gets faster by more than measurements differ."""
        return self.speedup >= WORTH

    def __str__(self) -> str:
        return (
            f"{'Yes' if self else 'No'}: at {self.ratio} of full rank a step on {self.device} takes "
            f"{self.low_seconds * 1e3:.1f} ms instead of {self.full_seconds * 1e3:.1f} ms "
            f"({self.speedup:.2f} times as fast) and {self.low_bytes / 2**20:.1f} MiB instead of "
            f"{self.full_bytes / 2**20:.1f} MiB"
        )


def will_it_pay(
    model: nn.Module, batch: Batch, *, ratio: float = 0.25, repeats: int = 5, forward: Forward | None = None
) -> Payoff:
    """Measure training steps of copies of the model, in turns: one full-rank, one with all layers at a ratio.

    Args:
        model: A plain module on its device; it is not changed.
        batch: A training batch of its inputs.
        ratio: α, the rank as a fraction of full rank.
        repeats: Timed steps of each copy, after one that is not.
        forward: How to call the model on a batch.

    Raises:
        CuttlefishError: The model has nothing to factorize or no output with a gradient, or the ratio is not
            in (0, 1).
    """
    if not 0 < ratio < 1:
        raise CuttlefishError(f"ratio={ratio} must lie between 0 and 1, both excluded.")
    path = main_path(model, batch, forward=forward)
    low = copy.deepcopy(model)
    ranks = {
        name: max(1, int(ratio * full_rank(layer_of(model, name).weight))) for name in candidates(model, path)
    }
    factorize(low, ranks)
    arms = [copy.deepcopy(model), low]
    device = first_tensor(batch).device
    seconds: list[list[float]] = [[], []]
    peaks = [0, 0]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for turn in range(repeats + 1):
            for index, arm in enumerate(arms):
                took, peaks[index] = _step(arm, batch, forward or call_model, device)
                if turn:
                    seconds[index].append(took)
    full, low_seconds = map(median, seconds)
    return Payoff(ratio, str(device), full, low_seconds, *peaks)


def _step(model: nn.Module, batch: Batch, forward: Forward, device: torch.device) -> tuple[float, int]:
    """Return seconds and bytes of one forward and backward pass."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    began = perf_counter()
    _as_loss(forward(model, batch)).backward()
    if cuda:
        torch.cuda.synchronize(device)
    took = perf_counter() - began
    model.zero_grad(set_to_none=True)
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return took, torch.cuda.max_memory_allocated(device) if cuda else size


def _as_loss(outputs: Any) -> Tensor:
    """Return a scalar through which gradients reach every output."""
    tensors = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if not tensors:
        raise CuttlefishError(
            "the model puts out no tensor that has a gradient: train() it, and say by forward= what to return"
        )
    return torch.stack([tensor.float().mean() for tensor in tensors]).sum()
