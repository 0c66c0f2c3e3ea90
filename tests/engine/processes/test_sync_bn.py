"""Our synchronised batch norm is torch's own over the whole batch, and empty shares leave statistics
alone."""

import pytest
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import nn

from cuttlefish.engine.processes.sync_bn import SyncBatchNorm2d, statistics_kept, synchronise
from cuttlefish.errors import CuttlefishError
from cuttlefish.worker import run_config
from tests.helpers.runs import little_config


@pytest.fixture
def group(tmp_path):
    """A group of one process, in which an all-reduce is real and changes nothing."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_model_without_batch_norm_is_refused(tmp_path):
    deit = {
        "name": "deit_tiny_patch16_224",
        "source": "timm",
        "width": None,
        "arguments": {"img_size": 12, "patch_size": 4},
    }
    config = little_config(tmp_path / "run", model=deit, trainer__sync_bn=True)
    with pytest.raises(CuttlefishError, match="deit_tiny_patch16_224 has no batch norm that could be"):
        run_config(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
def test_agrees_with_torch(group, momentum, affine):
    torch.manual_seed(0)
    ours = nn.Sequential(nn.BatchNorm2d(5, momentum=momentum, affine=affine)).double()
    torchs = nn.Sequential(nn.BatchNorm2d(5, momentum=momentum, affine=affine)).double()
    synchronise(ours)
    assert type(ours[0]) is SyncBatchNorm2d and ours.state_dict().keys() == torchs.state_dict().keys()
    for _ in range(3):
        x = (3 * torch.randn(4, 5, 3, 2) + 7).double()
        gradients = []
        for model in (ours, torchs):
            y = x.clone().requires_grad_()
            model.zero_grad()
            (model(y) ** 3).sum().backward()
            gradients.append([y.grad, *(parameter.grad for parameter in model.parameters())])
        for mine, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
    for name, buffer in torchs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], buffer, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.eval()(x), torchs.eval()(x))


def test_bf16_activations_keep_their_type_and_float32_statistics(group):
    norm = nn.BatchNorm2d(3)
    synchronise(norm)
    y = norm(torch.randn(8, 3, 4, 4).bfloat16())
    assert (
        y.dtype == torch.bfloat16
        and norm.running_mean.dtype == torch.float32
        and abs(y.float().mean().item()) < 1e-2
    )


def test_statistics_survive_an_empty_share():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    before = {name: value.clone() for name, value in model.named_buffers()}
    with statistics_kept(model, 0):
        model(torch.zeros(0, 3, 6, 6)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert all(
        torch.equal(parameter.grad, torch.zeros_like(parameter)) for parameter in model.parameters()
    ), "and every gradient is there"
    assert model[1].training
    with statistics_kept(model, 2):
        model(torch.ones(2, 3, 6, 6))
    assert not torch.equal(model[1].running_mean, before["1.running_mean"])


def test_a_batch_norm_with_an_activation_is_synchronised_too(group):
    torch.manual_seed(0)
    ours, theirs = (nn.Sequential(BatchNormAct2d(5, inplace=False)) for _ in range(2))
    synchronise(ours)
    assert type(ours[0]) is not BatchNormAct2d and isinstance(ours[0], BatchNormAct2d)
    x = torch.randn(4, 5, 3, 2)
    for _ in range(2):
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)
        assert ours(x).min() == 0, "the activation is there"
        theirs(x)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-5, atol=1e-6)


def test_an_unknown_batch_norm_is_refused():
    class Odd(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(CuttlefishError, match="'0' is a Odd with behaviour of its own"):
        synchronise(nn.Sequential(Odd(3)))
