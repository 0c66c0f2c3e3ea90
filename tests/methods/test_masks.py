"""Masks on models whose weights are shared or computed."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

from cuttlefish.errors import CuttlefishError
from cuttlefish.methods.masks import Masks, prunable


def test_a_weight_tied_to_another_kind_of_layer_is_pruned():
    model = nn.ModuleDict({"embedding": nn.Embedding(6, 4), "head": nn.Linear(4, 6, bias=False)})
    model["head"].weight = model["embedding"].weight
    keep = torch.arange(24).reshape(6, 4) % 2 == 0
    assert list(prunable(model)) == ["head.weight"]
    Masks({"head.weight": keep}).apply(model)
    assert torch.equal(model["embedding"].weight != 0, keep)


def test_tied_layers_are_pruned_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert list(prunable(model)) == ["0.weight"]
    Masks({"0.weight": torch.eye(4).bool()}).apply(model)
    assert (model[1].weight != 0).sum() == 4


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("normalise", [weight_norm, parametrizations.weight_norm])
def test_a_computed_weight_is_refused(normalise):
    model = nn.Sequential(nn.Flatten(), normalise(nn.Linear(4, 4)))
    with pytest.raises(CuttlefishError, match="layer '1' cannot be pruned: its weight is computed"):
        prunable(model)
