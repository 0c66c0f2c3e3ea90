"""Batch norms that do more than normalise, such as timm's BatchNormAct2d with drop and activation."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def after_norm(norm: _BatchNorm) -> nn.Module | None:
    """Return the module that a batch norm applies to its normalised output.

    Returns:
        An Identity, timm's drop and activation, or None for an unknown class with its own forward.
    """
    if type(norm).forward is _BatchNorm.forward:
        return nn.Identity()
    if isinstance(getattr(norm, "drop", None), nn.Module) and isinstance(
        getattr(norm, "act", None), nn.Module
    ):
        return nn.Sequential(norm.drop, norm.act)
    return None
