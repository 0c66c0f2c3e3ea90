"""β for weights of any origin: random, pretrained, zero, low-rank."""

import numpy as np
import pytest
import torch
from torch import nn

from cuttlefish import Cuttlefish
from cuttlefish.lowrank.rank import RankTracker
from cuttlefish.lowrank.rank.beta import expected, first_ranks, rank_of_energy
from cuttlefish.lowrank.rank.stable import stable_rank
from tests.lowrank.rank.test_rank import with_spectrum

DECAYED = np.linspace(1, 0.01, 64) ** 2 + np.eye(64)[0] * 2


def first(rule, *matrices):
    named = {str(index): matrix for index, matrix in enumerate(matrices)}
    values = {name: stable_rank(matrix) for name, matrix in named.items()}
    return list(first_ranks(rule, named, values, stable_rank).values())


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("shape", [(64, 64), (64, 200), (200, 64)])
def test_rank_of_energy_against_a_float64_svd(shape, share):
    torch.manual_seed(0)
    matrix = torch.randn(shape) * torch.logspace(0, -3, shape[1])
    energies = np.linalg.svd(matrix.double().numpy(), compute_uv=False) ** 2
    kept = np.cumsum(energies) / energies.sum()
    assert rank_of_energy(matrix, share) == int(np.argmax(kept >= share)) + 1


@pytest.mark.parametrize("shape", [(384, 384), (1536, 384), (64, 576)])
def test_expected_stable_rank_of_gaussian_matrices(shape):
    torch.manual_seed(1)
    assert expected(shape) == pytest.approx(stable_rank(torch.randn(shape)), rel=0.1)


def test_random_weights_keep_the_papers_beta():
    """The smallest layers too, whose stable ranks scatter most: 200 draws of each shape."""
    torch.manual_seed(0)
    for shape in ((4, 4), (8, 72), (16, 144), (64, 64)):
        for _ in range(200):
            assert first("auto", torch.randn(shape)) == [min(shape)]
    layers = [nn.Conv2d(3, 16, 3), nn.Linear(32, 32), nn.Linear(8, 64)]
    orthogonal = nn.init.orthogonal_(torch.empty(32, 32))
    matrices = [layer.weight.detach().flatten(1) for layer in layers]
    assert first("auto", *matrices, orthogonal) == [16, 32, 8, 32]


def test_other_weights_begin_at_the_rank_of_their_energy():
    pretrained = with_spectrum(64, 64, DECAYED)
    low = torch.randn(64, 4) @ torch.randn(4, 96)
    found = first("auto", torch.randn(64, 64), low, torch.zeros(64, 64))
    assert found == [64, rank_of_energy(low), 64] and found[1] <= 4
    mostly = first("auto", pretrained, pretrained, torch.randn(64, 64))
    assert mostly[0] == mostly[1] == rank_of_energy(pretrained) < 32 and mostly[2] < 64, (
        "the median layer is pretrained, so all are"
    )


def test_each_rule_by_name():
    pretrained = with_spectrum(64, 64, DECAYED)
    torch.manual_seed(0)
    usual = stable_rank(torch.randn(64, 64))
    assert first("initial", pretrained) == [64]
    assert first("random", pretrained) == pytest.approx([64 * stable_rank(pretrained) / usual], rel=0.1)
    assert first("energy", torch.randn(64, 64))[0] < 64


def test_the_tracker_scales_by_the_first_rank():
    model = nn.Sequential(nn.Linear(64, 64))
    with torch.no_grad():
        model[0].weight.copy_(with_spectrum(64, 64, DECAYED))
    tracker = RankTracker(model, ["0"])
    tracker.update()
    start = rank_of_energy(model[0].weight)
    assert tracker.first == {"0": start} and tracker.scaled_ranks() == {"0": start}
    with torch.no_grad():
        model[0].weight.copy_(with_spectrum(64, 64, DECAYED + np.eye(64)[0]))
    now, before = tracker.update()["0"], tracker.history["0"][0]
    assert tracker.scaled_ranks() == {"0": int(np.ceil(start * now / before))} and now < before


def test_a_resumed_core_knows_the_first_ranks():
    def network():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 2))
        with torch.no_grad():
            model[2].weight.copy_(with_spectrum(64, 64, DECAYED))
        return model

    batch, knobs = torch.randn(4, 64), {"k": 1, "switch_epoch": 2}
    cf = Cuttlefish(network(), batch, **knobs)
    again = Cuttlefish(network(), batch, state=cf.state_dict())
    assert again.tracker.first == cf.tracker.first and cf.tracker.first["2"] < 32
    for core in (cf, again):
        core.epoch_end()
        assert core.epoch_end() and core.final_ranks() == {"2": int(cf.tracker.first["2"])}
