"""VGG-19 (Simonyan and Zisserman, 2015) with batch norm for small images, as in the reference."""

from math import sqrt

from torch import Tensor, nn
from torch.nn import functional as F

STACKS = ((1, 2), (2, 2), (4, 4), (8, 4), (8, 4))
"""(channels as a multiple of the width, convolutions) per stack; resolution halves between stacks."""


class Vgg19(nn.Module):
    """16 convolutions and one linear layer. (B, channels, H, W) to (B, classes) logits.

    20,035,018 parameters at width 64 with 10 classes. The last pooling averages the remaining map (2×2 for
    32×32 images); a one-pixel map is pooled to itself, so images smaller than 32×32 work too.
    """

    def __init__(self, classes: int, channels: int = 3, width: int = 64):
        super().__init__()
        self.features = nn.Sequential(*_layers(channels, width))
        self.classifier = nn.Linear(8 * width, classes)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


def _layers(inputs: int, width: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for multiple, convolutions in STACKS:
        if layers:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))  # ceil: 1×1 stays 1×1
        for _ in range(convolutions):
            outputs = multiple * width
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
            inputs = outputs
    return layers


def _initialise(module: nn.Module) -> None:
    """Initialise as the reference: convolutions N(0, 2 / (k² · in)) (He, fan-in), the Linear N(0, 0.01²)."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0, sqrt(2 / module.weight[0].numel()))
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0, 0.01)
        nn.init.zeros_(module.bias)
