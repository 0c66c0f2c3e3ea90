"""Models: the suite's own CIFAR networks, and any classifier of timm or torchvision."""

from cuttlefish.models.build import build_model

__all__ = ["build_model"]
