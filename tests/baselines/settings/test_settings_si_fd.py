"""What SI&FD adds to the gradients of a step: the gradient of λ/2·‖UVᵀ‖², once."""

import pytest
import torch

from cuttlefish.engine.run import resolve_run
from cuttlefish.engine.session import Session
from cuttlefish.lowrank.surgery import low_rank_layers
from tests.helpers.runs import little_config


def kernel(layer) -> torch.Tensor:
    """W[o, i, a, b] of a k×1 convolution of a 1×k one, written out."""
    return torch.einsum("ora,rib->oiab", layer.second.weight[:, :, :, 0], layer.first.weight[:, :, 0, :])


@pytest.mark.parametrize("decay", [0.3, 1e-4])
def test_a_step_adds_half_lambda_s_gradient_to_factors_alone(tmp_path, decay):
    run = Session(
        resolve_run(
            little_config(tmp_path, "si_fd", method__frobenius_decay=decay, trainer__precision="fp64")
        )
    )
    run.method.on_fit_start(run.context)
    model = run.context.model
    names, parameters = zip(*model.named_parameters(), strict=True)
    penalty = decay / 2 * sum(kernel(layer).square().sum() for layer in low_rank_layers(model).values())
    expected = torch.autograd.grad(penalty, parameters, materialize_grads=True)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    run.method.on_gradients(model)
    for name, parameter, added in zip(names, parameters, expected, strict=True):
        torch.testing.assert_close(
            parameter.grad - 1, added, rtol=1e-6, atol=1e-14, msg=lambda text, name=name: f"{name}: {text}"
        )
        assert added.any() == name.endswith(("first.weight", "second.weight"))
