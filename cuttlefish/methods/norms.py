"""Batch norms that do more than normalise, as timm's BatchNormAct2d, which drops and activates too."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def after_norm(norm: _BatchNorm) -> nn.Module | None:
    """Return what a batch norm does with its normalised output: nothing (an Identity), or timm's drop and
    activation.

    Returns:
        None for a class with a forward of its own that is not known.
    """
    if type(norm).forward is _BatchNorm.forward:
        return nn.Identity()
    if isinstance(getattr(norm, "drop", None), nn.Module) and isinstance(
        getattr(norm, "act", None), nn.Module
    ):
        return nn.Sequential(norm.drop, norm.act)
    return None
