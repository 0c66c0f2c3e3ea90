"""When a method changes gradients and weights: once a step, after clipping and the last part of the batch."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from cuttlefish.config.recipe import OptimizerConfig, RecipeConfig
from cuttlefish.config.schema import TrainerConfig
from cuttlefish.engine.processes.world import World
from cuttlefish.engine.step import StepRunner
from cuttlefish.methods.base import Method
from cuttlefish.tasks.base import Batch

NORM = 1e-3


class Adding(Method):
    """Adds 1 to every gradient, and after the step to every weight."""

    def __init__(self):
        super().__init__(None)
        self.found = []

    def on_gradients(self, model):
        self.found.append([weight.grad.clone() for weight in model.parameters()])
        for weight in model.parameters():
            weight.grad += 1

    @torch.no_grad()
    def on_step_end(self, model):
        for weight in model.parameters():
            weight += 1


@pytest.mark.parametrize("accumulate", [1, 3])
def test_what_a_method_adds_reaches_the_step_once_and_unclipped(accumulate):
    torch.manual_seed(0)
    model, method = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), Adding()
    batch = Batch(torch.randn(6, 3, 2, 2), torch.arange(6) % 4, 6)
    task = SimpleNamespace(
        loss=lambda outputs, part, _: cross_entropy(outputs, part.targets, reduction="sum"),
        correct=lambda outputs, part: 0,
    )
    recipe = RecipeConfig(
        batch_size=6, clip_norm=NORM, accumulate=accumulate, optimizer=OptimizerConfig(momentum=0.0)
    )
    weights = list(model.parameters())
    gradients = torch.autograd.grad(cross_entropy(model(batch.inputs), batch.targets), weights)
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    expected = [gradient * NORM / norm for gradient in gradients]
    before = [weight.detach().clone() for weight in weights]
    config = TrainerConfig(channels_last=False, precision="fp32")
    runner = StepRunner(model, task, method, recipe, 0.1, config, World(), torch.device("cpu"))
    for group in runner.optimizer.param_groups:
        group["weight_decay"] = 0.0
    runner.step(batch, torch.zeros(3))
    (found,) = method.found
    for weight, start, own, clipped in zip(weights, before, found, expected, strict=True):
        torch.testing.assert_close(own, clipped, rtol=1e-3, atol=1e-9)
        torch.testing.assert_close(weight.detach(), start - 0.1 * (own + 1) + 1)
