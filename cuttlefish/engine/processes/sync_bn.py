"""Batch norm over the batch of all processes, by an all-reduce of our own (torch's refuses CPU tensors), and over empty shares."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _AllReduce(torch.autograd.Function):
    """The sum over processes. Each process's loss depends on it, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class _Synchronised(_BatchNorm):
    """In train mode the mean and variance are those of all processes' samples; a process without any takes part as well."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        y = x.to(torch.promote_types(x.dtype, torch.float32))
        across = [dim for dim in range(y.dim()) if dim != 1]
        shape = [1, -1] + [1] * (y.dim() - 2)
        count = y.new_tensor([y.numel() / y.shape[1]])
        total = _AllReduce.apply(torch.cat([y.sum(across), count]))
        count = total[-1].detach()
        mean = total[:-1] / count
        centred = y - mean.view(shape)
        variance = _AllReduce.apply((centred * centred).sum(across)) / count
        self._follow(mean.detach(), variance.detach(), count)
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        y = centred * scale.view(shape)
        return (y + self.bias.view(shape) if self.affine else y).to(x.dtype)

    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """The running statistics, as torch keeps them: with the unbiased variance."""
        if not self.track_running_stats or self.running_mean is None:
            return
        with torch.no_grad():
            self.num_batches_tracked += 1
            rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), rate)


class SyncBatchNorm1d(_Synchronised, nn.BatchNorm1d):
    pass


class SyncBatchNorm2d(_Synchronised, nn.BatchNorm2d):
    pass


SYNCHRONISED = {nn.BatchNorm1d: SyncBatchNorm1d, nn.BatchNorm2d: SyncBatchNorm2d}


def synchronise(model: nn.Module) -> None:
    """Make every batch norm of the model a synchronised one, in place: same parameters, buffers and state-dict keys."""
    for module in model.modules():
        if type(module) in SYNCHRONISED:
            module.__class__ = SYNCHRONISED[type(module)]


@contextmanager
def statistics_kept(model: nn.Module, samples: int) -> Iterator[None]:
    """Where this process has no samples, ordinary batch norms must not take the mean of nothing into their statistics."""
    norms = (
        []
        if samples
        else [
            m
            for m in model.modules()
            if isinstance(m, _BatchNorm) and not isinstance(m, _Synchronised) and m.training
        ]
    )
    for norm in norms:
        norm.eval()
    yield
    for norm in norms:
        norm.train()
