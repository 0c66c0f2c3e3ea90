"""The public ImageNet code's lists out of step, by the factors that the audit computed."""

import pytest
from torch import nn

from cuttlefish.lowrank.rank import RankTracker
from cuttlefish.lowrank.rank.misaligned import misaligned_ranks

R = {"c1": 512, "c2": 512, "c3": 512, "ds": 1024, "d1": 512, "d2": 512, "d3": 512}
START = {"c1": 170, "c2": 289, "c3": 228, "ds": 350, "d1": 228, "d2": 289, "d3": 228}


def tracker(now):
    found = RankTracker(nn.Sequential(), [])
    found.full, found.history = R, {name: [float(START[name]), float(now)] for name in R}
    return found


def test_from_the_second_block_on_each_layer_has_its_predecessor_s_beta():
    ranks = misaligned_ranks(tracker(100), list(R), ["ds"])
    beta = {name: R[name] / START[name] for name in R}
    source = {"ds": "ds", "c1": "c1", "c2": "c2", "c3": "c3", "d1": "ds", "d2": "d1", "d3": "d2"}
    assert ranks == {name: pytest.approx(100 * beta[source[name]], abs=1) for name in R}
    assert ranks["d2"] / (100 * beta["d2"]) == pytest.approx(1.27, abs=0.01)
    assert ranks["d3"] / (100 * beta["d3"]) == pytest.approx(0.79, abs=0.01)


def test_the_shortcut_has_the_first_layer_s_bounds():
    low, high = (misaligned_ranks(tracker(now), list(R), ["ds"], rank_floor=0.2) for now in (1, 1000))
    assert low["ds"] == 102 and low["c3"] == 204 and high["ds"] == 512
    assert {low[name] for name in R if name not in ("ds", "c3")} == {102}
    assert high["c3"] == 512, "the code's own bound, 1024, is above the layer's full rank"


def test_without_shortcuts_layers_that_stay_dense_shift_the_betas():
    """qkv, proj, fc1, fc2 of a block, of which proj is not factorized: fc1 has its β."""
    found = RankTracker(nn.Sequential(), [])
    found.full = dict.fromkeys(["qkv", "proj", "fc1", "fc2"], 768)
    found.history = {"qkv": [308.0, 100.0], "proj": [192.0, 90.0], "fc1": [341.0, 80.0], "fc2": [341.0, 80.0]}
    ranks = misaligned_ranks(found, ["qkv", "fc1", "fc2"], [])
    assert ranks == {"qkv": 250, "fc1": 320, "fc2": 181}
