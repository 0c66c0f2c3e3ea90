"""One way to count: parameters in four senses that are never mixed, and multiply-accumulates."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cuttlefish.lowrank.trace import Batch, Forward, call_model, eager, evaluating


@dataclass(frozen=True)
class Counts:
    """The sizes of a model. Buffers (BN statistics, masks) are in none of them.

    total: every parameter, frozen ones too; a shared one once. trainable: those with requires_grad.
    nonzero: entries that are not 0. stored_bits: the total, each in the bits of its dtype.
    """

    total: int
    trainable: int
    nonzero: int
    stored_bits: int


def count_parameters(model: nn.Module) -> Counts:
    """Return the model's sizes in all four senses."""
    parameters = list(model.parameters())
    return Counts(
        total=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        nonzero=sum(int(torch.count_nonzero(parameter.detach())) for parameter in parameters),
        stored_bits=sum(parameter.numel() * parameter.element_size() * 8 for parameter in parameters),
    )


def gradient_bytes(model: nn.Module) -> int:
    """Return the bytes of all gradients of a step: what data-parallel processes sum up (all-reduce)."""
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    return sum(parameter.numel() * parameter.element_size() for parameter in trained)


@torch.no_grad()
def count_macs(model: nn.Module, example: Batch, forward: Forward = call_model) -> int:
    """Return the multiply-accumulates of one forward pass: convolutions and matrix products, attention too.

    The pass is in eval mode, so that batch statistics and random states stay as they are.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton, which a refusal need not wait for

    with evaluating(model), _visible_attention(), eager(), FlopCounterMode(display=False) as counter:
        forward(model, example)
    return counter.get_total_flops() // 2


@contextmanager
def _visible_attention() -> Generator[None]:
    """Write fused attention out as matrix products: its kernels escape the counter on some devices."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
