"""Activation checkpointing: the same gradients from fewer kept activations."""

import pytest
import torch
from torch import nn

from cuttlefish.config.schema import ModelConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.surgery import factorize
from cuttlefish.models import build_model
from cuttlefish.models.recompute import recompute_activations

SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 3, "num_heads": 2}


def deit():
    torch.manual_seed(0)
    return build_model(ModelConfig("deit_tiny_patch16_224", "timm", arguments=SMALL), 5, (3, 16, 16))


def kept(model, images):
    """The bytes that autograd keeps for the backward pass, and the gradients."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.nbytes) or x, lambda x: x):
        loss = model(images).square().sum()
    loss.backward()
    return sum(sizes), [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("switched", [False, True])
def test_gradients_are_the_same_before_and_after_the_switch(switched):
    images = torch.randn(2, 3, 16, 16)
    found = []
    for recompute in (False, True):
        model = deit()
        if recompute:
            recompute_activations(model, "deit")
        if switched:
            factorize(model, {"blocks.1.mlp.fc1": 4})
        found.append(kept(model, images))
    (plain, expected), (less, gradients) = found
    assert less < plain / 2
    for one, other in zip(expected, gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_model_without_it_is_refused():
    with pytest.raises(CuttlefishError, match="trainer.recompute=true: mine has no activation checkpointing"):
        recompute_activations(nn.Sequential(nn.Linear(2, 2)), "mine")
