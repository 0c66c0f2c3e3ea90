"""Plans and files bring a low-rank model back, bit by bit."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import cuttlefish
from cuttlefish import CuttlefishError, factorize
from tests.helpers.little_networks import IMAGES, network


def small(**options):
    return factorize(network(), {"3": 5, "6": 7}, **options)


@pytest.mark.parametrize("options", [{}, {"extra_bn": True}, {"scheme": "spatial"}])
def test_a_file_brings_the_same_model_back(options, tmp_path):
    model = small(**options).eval()
    cuttlefish.save(model, tmp_path / "model.safetensors")
    again = cuttlefish.load(lambda: network(7), tmp_path / "model.safetensors").eval()
    assert torch.equal(model(IMAGES), again(IMAGES)) and [file.name for file in tmp_path.iterdir()] == [
        "model.safetensors"
    ]


def test_a_dense_model_is_saved_like_any(tmp_path):
    cuttlefish.save(network(), tmp_path / "model")
    assert torch.equal(cuttlefish.load(lambda: network(7), tmp_path / "model")[0].weight, network()[0].weight)


def test_a_plan_is_json_and_splits_trained_weights():
    model, other = small(), network(3)
    written = json.loads(json.dumps(cuttlefish.plan(model)))
    assert written["layers"]["3"] == {
        "rank": 5, "shape": [24, 16, 3, 3], "scheme": "channel", "extra_bn": False, "first_bias": False,
    }  # fmt: skip
    expected = factorize(network(3), {"3": 5, "6": 7})
    assert torch.equal(cuttlefish.apply(other, written)(IMAGES), expected(IMAGES))
    assert cuttlefish.plan(cuttlefish.densify(other))["layers"] == {}


def test_what_does_not_fit_is_refused(tmp_path):
    model, path = small(), tmp_path / "model"
    cuttlefish.save(model, path)
    with pytest.raises(CuttlefishError, match="there is no file"):
        cuttlefish.load(network, tmp_path / "other")
    with pytest.raises(CuttlefishError, match="no layer '3'"):
        cuttlefish.load(lambda: nn.Sequential(nn.Linear(2, 2)), path)
    with pytest.raises(CuttlefishError, match="layer '3' has a weight of .*the model's of"):
        cuttlefish.apply(nn.Sequential(*[nn.Linear(2, 2) for _ in range(8)]), cuttlefish.plan(model))
    with pytest.raises(CuttlefishError, match="this is no plan of cuttlefish"):
        cuttlefish.apply(network(), {"layers": {}})
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(CuttlefishError, match="holds no plan"):
        cuttlefish.load(network, tmp_path / "foreign")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CuttlefishError, match="no safetensors file"):
        cuttlefish.load(network, tmp_path / "text")

    def with_another_head():
        return network()[:-1].append(nn.Linear(24, 9))

    with pytest.raises(CuttlefishError, match="do not fit the model"):
        cuttlefish.load(with_another_head, path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_a_file_with_a_damaged_plan_is_refused(tmp_path, text):
    save_file({"a": torch.zeros(1)}, tmp_path / "model", metadata={"cuttlefish_plan": text})
    with pytest.raises(CuttlefishError, match="damaged plan|no plan of cuttlefish"):
        cuttlefish.load(network, tmp_path / "model")


@pytest.mark.parametrize("layers", [3, None, {"3": 4}, {"3": {"rank": 4}}])
def test_a_plan_with_damaged_layers_changes_nothing(layers):
    model = network()
    with pytest.raises(CuttlefishError, match="the plan is damaged"):
        cuttlefish.apply(model, cuttlefish.plan(model) | {"layers": layers})
    assert cuttlefish.plan(model)["layers"] == {}


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    for path in (tmp_path, tmp_path / "nosuch" / "model"):
        with pytest.raises(CuttlefishError, match="cannot write"):
            cuttlefish.save(network(), path)
    assert not list(tmp_path.iterdir()) and not tmp_path.with_name(f"{tmp_path.name}.part").exists()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.body, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.last.weight = self.first.weight

    def forward(self, x):
        return self.last(self.body(self.first(x)))


def test_tied_weights_are_saved(tmp_path):
    model = factorize(Tied(), {"body": 2})
    cuttlefish.save(model, tmp_path / "model")
    again = cuttlefish.load(Tied, tmp_path / "model")
    assert again.last.weight is again.first.weight
    assert torch.equal(again(torch.ones(2, 8)), model(torch.ones(2, 8)))
