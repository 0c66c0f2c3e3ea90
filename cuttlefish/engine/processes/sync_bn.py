"""Batch norm over the global batch, also with empty shares. (torch's own does not support CPU tensors.)"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cuttlefish.errors import CuttlefishError
from cuttlefish.methods.norms import after_norm


class _AllReduce(torch.autograd.Function):
    """Sum over processes. Every process's loss depends on the sum, so the gradients are summed too."""

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
    """A batch norm that uses the mean and variance over all processes' samples in train mode."""

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
        y = (y + self.bias.view(shape) if self.affine else y).to(x.dtype)
        return self._after(y)

    def _after(self, y: Tensor) -> Tensor:
        return y

    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Update the running statistics as torch does, with the unbiased variance."""
        if not self.track_running_stats or self.running_mean is None:
            return
        with torch.no_grad():
            self.num_batches_tracked += 1
            rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), rate)


class _SynchronisedWithActivation(_Synchronised):
    """The same for timm's batch norms, followed by their drop and activation."""

    def _after(self, y: Tensor) -> Tensor:
        return self.act(self.drop(y))


class SyncBatchNorm1d(_Synchronised, nn.BatchNorm1d):
    pass


class SyncBatchNorm2d(_Synchronised, nn.BatchNorm2d):
    pass


class SyncBatchNorm3d(_Synchronised, nn.BatchNorm3d):
    pass


PLAIN = {nn.BatchNorm1d: SyncBatchNorm1d, nn.BatchNorm2d: SyncBatchNorm2d, nn.BatchNorm3d: SyncBatchNorm3d}


def synchronise(model: nn.Module) -> None:
    """Synchronise every batch norm in place; parameters, buffers and state-dict keys are unchanged."""
    check_synchronisable(model)
    for module in _unsynchronised(model).values():
        module.__class__ = PLAIN.get(type(module)) or _with_activation(type(module))


def check_has_norms(model: nn.Module, name: str) -> None:
    """Raise CuttlefishError if the model has no batch norm."""
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise CuttlefishError(
            f"trainer.sync_bn=true, but {name} has no batch norm that could be synchronised: "
            "take trainer.sync_bn=false"
        )


def check_synchronisable(model: nn.Module) -> None:
    """Raise CuttlefishError if the model has a batch norm of an unknown kind."""
    for name, module in _unsynchronised(model).items():
        if after_norm(module) is None:
            raise CuttlefishError(
                f"trainer.sync_bn=true, but {name!r} is a {type(module).__name__} with behaviour of its own, "
                "which cannot be synchronised: take trainer.sync_bn=false or another network"
            )


def _unsynchronised(model: nn.Module) -> dict[str, _BatchNorm]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and not isinstance(module, _Synchronised | nn.SyncBatchNorm)
    }


@cache
def _with_activation(kind: type) -> type:
    base = _Synchronised if kind.forward is _BatchNorm.forward else _SynchronisedWithActivation
    return type(f"Sync{kind.__name__}", (base, kind), {})


@contextmanager
def statistics_kept(model: nn.Module, samples: int) -> Iterator[None]:
    """Keep an empty share from putting NaN into the running statistics of ordinary batch norms."""
    norms = [] if samples else [norm for norm in _unsynchronised(model).values() if norm.training]
    for norm in norms:
        norm.eval()
    yield
    for norm in norms:
        norm.train()
