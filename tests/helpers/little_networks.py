"""A small convolutional network and a loop, for tests of the library's face."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

IMAGES = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8) % 4
LAYERS = ["3", "6"]


def network(seed=0):
    """Two layers that can be factorized (3 and 6) between a first and a last one."""
    torch.manual_seed(seed)
    layers = []
    for inputs, outputs in ((3, 16), (16, 24), (24, 24)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4))


def step(model, optimizer, cf=None):
    """One training step; return the loss."""
    loss = cross_entropy(model(IMAGES), LABELS)
    loss.backward()
    if cf is not None:
        cf.before_step()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()
