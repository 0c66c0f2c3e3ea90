"""One-shot compression against what theory says is the least possible error."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from cuttlefish import CuttlefishError, LowRankConv2d, LowRankLinear, compress
from cuttlefish.compression.budget import ranks_for
from cuttlefish.compression.whitening import input_moments, rows
from cuttlefish.lowrank.trace import call_model
from tests.helpers.little_networks import IMAGES, network


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_ratio_energy_and_ranks():
    assert compress(network(), ratio=0.25).ranks == {"0": 4, "3": 6, "6": 6, "11": 1}
    model = network()
    sigma = scipy.linalg.svdvals(model[3].weight.detach().flatten(1).double().numpy())
    report = compress(model, energy=0.5, dense=["0", "11"])
    kept = np.square(sigma).cumsum() / np.square(sigma).sum()
    assert report.ranks["3"] == np.argmax(kept >= 0.5) + 1 and isinstance(model[3], LowRankConv2d)
    assert report.errors["3"] == pytest.approx(np.sqrt(1 - kept[report.ranks["3"] - 1]))
    assert report.parameters_after == size(model) < report.parameters_before
    assert compress(network(), ranks={"6": 3}).ranks == {"6": 3}


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 2.0])
def test_a_size_is_kept_and_used(share):
    model = network()
    target = int(share * size(model))
    report = compress(model, target_params=target)
    assert report.parameters_after == size(model) <= target
    assert share > 1 or report.parameters_after > target - 24 * 9 - 24, "the next rank would not fit"


def test_ranks_go_where_energy_is():
    shapes = {"a": (20, 30), "b": (20, 30)}
    spectra = {"a": torch.logspace(0, -8, 20, dtype=torch.float64), "b": torch.ones(20, dtype=torch.float64)}
    ranks = ranks_for(50 * 10, 2 * 600, shapes, spectra)
    assert ranks["a"] < 5 and ranks["a"] + ranks["b"] <= 10
    with pytest.raises(
        CuttlefishError, match="target_params=99 cannot be reached: with rank 1 in all 2 layers"
    ):
        ranks_for(99, 2 * 600, shapes, spectra)


def correlated(count, width):
    torch.manual_seed(0)
    return torch.randn(count, width) @ torch.diag(torch.logspace(0, -2, width)) @ torch.randn(width, width)


def test_with_calibration_outputs_are_as_near_as_can_be():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 24), nn.Linear(24, 40, bias=False), nn.Linear(40, 3))
    plain = nn.Sequential(*[nn.Linear(24, 24), nn.Linear(24, 40, bias=False), nn.Linear(40, 3)])
    plain.load_state_dict(model.state_dict())
    x = correlated(500, 24)
    with torch.no_grad():
        inner = model[0](x)
        outputs = model[1](inner)
    report = compress(model, ranks={"1": 5}, calibration=[x[:200], x[200:]])
    compress(plain, ranks={"1": 5})
    sigma = scipy.linalg.svdvals(outputs.double().numpy())
    with torch.no_grad():
        error = (model[1](inner) - outputs).square().sum().item()
        error_plain = (plain[1](inner) - outputs).square().sum().item()
    assert error == pytest.approx(np.square(sigma[5:]).sum(), rel=1e-3), "the best rank-5 outputs of all"
    assert error < 0.5 * error_plain
    assert report.errors["1"] == pytest.approx(
        np.sqrt(np.square(sigma[5:]).sum() / np.square(sigma).sum()), rel=1e-4
    )


@pytest.mark.parametrize(
    "options", [{"padding": 1}, {"stride": 2, "dilation": 2}, {"padding": "same", "padding_mode": "reflect"}]
)
def test_patches_are_what_a_kernel_sees(options):
    conv = nn.Conv2d(3, 5, (3, 2), **options)
    with torch.no_grad():
        expected = conv(IMAGES).transpose(0, 1).flatten(1).T
        ours = rows(conv, IMAGES) @ conv.weight.flatten(1).T + conv.bias
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_moments_are_means_over_all_batches():
    model = nn.Sequential(nn.Linear(4, 6))
    x = torch.randn(10, 3, 4)
    moments = input_moments(model, ["0"], [x[:7], x[7:]], call_model)
    flat = x.reshape(-1, 4).double()
    torch.testing.assert_close(moments["0"], flat.T @ flat / 30, rtol=1e-5, atol=1e-6)


def test_with_calibration_ends_stay_dense():
    model = network().eval()
    report = compress(model, ratio=0.5, calibration=[IMAGES])
    assert list(report.ranks) == ["3", "6"] and isinstance(model[11], nn.Linear)
    assert "3: rank 12, error" in str(report)


def test_inputs_that_never_vary_are_no_trouble():
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 2))
    compress(model, ranks={"1": 3}, calibration=[torch.ones(5, 8)])
    assert isinstance(model[1], LowRankLinear) and model(torch.ones(5, 8)).isfinite().all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "give one of ratio, energy, target_params and ranks, not 0 of them"),
        ({"ratio": 0.5, "energy": 0.9}, "not 2 of them"),
        ({"ratio": 0.0}, "ratio=0.0 must be above 0"),
        ({"energy": 1.5}, "energy=1.5 must be"),
        ({"ranks": {"33": 2}}, "no layer '33'"),
        ({"target_params": 10}, "target_params=10 cannot be reached"),
        ({"ratio": 0.5, "calibration": []}, "calibration has no batch"),
    ],
)
def test_bad_input_changes_nothing(options, sentence):
    model = network()
    with pytest.raises(CuttlefishError, match=sentence):
        compress(model, **options)
    assert not any(isinstance(module, LowRankConv2d) for module in model.modules())


def test_a_calibration_with_labels_is_refused_in_a_sentence():
    with pytest.raises(CuttlefishError, match="give its inputs, or say by forward= how to call it"):
        compress(network(), ratio=0.5, calibration=[(IMAGES, torch.zeros(8))])
