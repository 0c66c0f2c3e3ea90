"""The mathematics on a GPU against the CPU: ranks, factorization, decay, the C step, profiling."""

import copy

import numpy as np
import pytest
import torch

from baselines.lc.c_step import c_step
from cuttlefish.lowrank.decay import FrobeniusDecay
from cuttlefish.lowrank.profiling import profile_stacks
from cuttlefish.lowrank.rank import stable_ranks
from cuttlefish.lowrank.surgery import densify, factorize
from cuttlefish.models.resnet_cifar import ResNet

LAYERS = {"layer3.0.conv2": 6, "layer3.1.conv1": 9, "layer4.1.conv1": 20}


@pytest.fixture(autouse=True)
def exactly():
    """As `set_up` does for trainer.precision=fp32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)


def uneven(*shape: int) -> torch.Tensor:
    """Normal numbers with rows of unlike size, so that no two singular values are near each other."""
    return torch.randn(shape) * torch.rand(shape[0], *[1] * (len(shape) - 1))


def test_stable_ranks_are_those_of_singular_values(device):
    weights = [uneven(64, 64, 3, 3), uneven(512, 512, 3, 3), uneven(10, 512), uneven(40, 7)]
    values = [np.linalg.svd(weight.double().flatten(1).numpy(), compute_uv=False) for weight in weights]
    assert stable_ranks([weight.to(device) for weight in weights]) == pytest.approx(
        [(s**2).sum() / s[0] ** 2 for s in values], rel=1e-6
    )


def test_a_factorized_network_computes_what_it_does_on_the_cpu(device):
    here = ResNet(10, width=16).eval()
    there, images = copy.deepcopy(here).to(device), torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        for change in (lambda model: factorize(model, LAYERS), densify):
            change(here)
            change(there)
            torch.testing.assert_close(there(images.to(device)).cpu(), here(images), rtol=1e-3, atol=1e-4)


def test_frobenius_decay_has_the_cpu_s_gradient(device):
    here = factorize(ResNet(10, width=8), {"layer3.0.conv2": 6, "layer4.1.conv1": 9})
    there = copy.deepcopy(here).to(device)
    for model in (here, there):
        FrobeniusDecay(model, 1e-3).add_gradients()
    gradients = {
        name: parameter.grad for name, parameter in here.named_parameters() if parameter.grad is not None
    }
    assert len(gradients) == 4
    for name, gradient in gradients.items():
        torch.testing.assert_close(there.get_parameter(name).grad.cpu(), gradient, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("shape", [(64, 576), (512, 100)])
def test_the_c_step_is_the_cpu_s(device, shape):
    matrix = uneven(*shape)
    here, there = (c_step(where, mu=1.0, alpha=5e-6) for where in (matrix, matrix.to(device)))
    assert there.rank == here.rank and 1 < here.rank < min(shape)
    assert there.delta.device.type == device
    torch.testing.assert_close(there.delta.cpu(), here.delta, rtol=1e-4, atol=1e-5)


def test_every_stack_is_profiled_and_the_random_state_stays(device):
    model, batch = ResNet(10, width=16).to(device), torch.zeros(32, 3, 32, 32, device=device)
    torch.manual_seed(1)
    numbers = torch.randn(3, device=device)
    torch.manual_seed(1)
    profile = profile_stacks(model, batch, repeats=3)
    assert torch.equal(torch.randn(3, device=device), numbers)
    assert len(profile.stacks) == 4 and all(
        stack.full_forward > 0 and stack.low_backward > 0 for stack in profile.stacks
    )
    assert profile.k in (1, 5, 9, 13, 18)
