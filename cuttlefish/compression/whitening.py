"""Low-rank factors that keep a layer's outputs rather than its weight (activation-whitened SVD).

Of all W' of rank r, that with the least E‖(W − W')·x‖² has W'·C^½ = the truncated SVD of W·C^½, where
C = E[x·xᵀ] is the second moment of the layer's inputs. With C = I it is the plain one.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cuttlefish.lowrank.trace import Forward, evaluating

TINY = 1e-8
"""Least share of the largest eigenvalue of C: directions that inputs never take still count that much."""


@torch.no_grad()
def input_moments(
    model: nn.Module, names: Iterable[str], batches: Iterable[Any], forward: Forward
) -> dict[str, Tensor]:
    """Return layer → E[x·xᵀ] (n × n, float64, CPU) over all positions of all batches.

    Args:
        model: Runs in eval mode; modes are as before afterwards.
        names: Conv2d layers without groups, and Linear layers. Of a convolution x is a patch of its input.
        batches: What `forward` takes beside the model.
        forward: Calls the model on a batch.
    """
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(names, 0)

    def hook_of(name: str) -> Any:
        def hook(module: nn.Conv2d | nn.Linear, inputs: tuple[Tensor, ...]) -> None:
            x = rows(module, inputs[0])
            moment = (x.T @ x).double().cpu()
            sums[name] = sums[name] + moment if name in sums else moment
            counts[name] += len(x)

        return hook

    handles = [model.get_submodule(name).register_forward_pre_hook(hook_of(name)) for name in counts]
    try:
        with evaluating(model):
            for batch in batches:
                forward(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: moment / counts[name] for name, moment in sums.items()}


def rows(module: nn.Conv2d | nn.Linear, x: Tensor) -> Tensor:
    """Return the vectors that a layer's matrix is applied to, as rows: tokens, or patches of an image."""
    if isinstance(module, nn.Linear):
        return x.reshape(-1, x.shape[-1]).float()
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x, padding = F.pad(x, module._reversed_padding_repeated_twice, mode=mode), 0
    else:
        padding = module.padding
    patches = F.unfold(x.float(), module.kernel_size, module.dilation, padding, module.stride)
    return patches.transpose(1, 2).reshape(-1, patches.shape[1])


def root(moment: Tensor) -> tuple[Tensor, Tensor]:
    """Return C^½ (as Q·Λ^½) and its inverse (Λ^-½·Qᵀ)."""
    energies, vectors = torch.linalg.eigh(moment)
    scales = energies.clamp_min(TINY * energies[-1].clamp_min(torch.finfo(energies.dtype).tiny)).sqrt()
    return vectors * scales, (vectors / scales).T
