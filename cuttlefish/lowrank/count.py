"""One way to count: parameters in four senses that are never mixed, and multiply-accumulates."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Counts:
    """total: every parameter, frozen ones too; a shared one once. trainable: those with requires_grad. nonzero: entries that are not 0.

    stored_bits: the total, each in the bits of its dtype. Buffers (BN statistics, masks) are in none of them.
    """

    total: int
    trainable: int
    nonzero: int
    stored_bits: int


def count_parameters(model: nn.Module) -> Counts:
    parameters = list(model.parameters())
    return Counts(
        total=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        nonzero=sum(int(torch.count_nonzero(parameter.detach())) for parameter in parameters),
        stored_bits=sum(parameter.numel() * parameter.element_size() * 8 for parameter in parameters),
    )


@torch.no_grad()
def count_macs(model: nn.Module, example: torch.Tensor) -> int:
    """Multiply-accumulates of convolutions and matrix products (attention too) in one forward pass of `example`, a batch of one.

    In eval mode, so that batch statistics and random states stay as they are; every module's training flag is put back.
    """
    with _evaluating(model), _visible_attention(), _eager(model), FlopCounterMode(display=False) as counter:
        model(example)
    return counter.get_total_flops() // 2


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


def _eager(model: nn.Module) -> AbstractContextManager[object]:
    """A compiled module's graph hides its operators from the counter."""
    compiled = any(module._compiled_call_impl is not None for module in model.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


@contextmanager
def _visible_attention() -> Iterator[None]:
    """Fused attention kernels escape the counter on some devices; written out as matrix products they count the same everywhere."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
