"""What a scale is, against the experiments that run it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cuttlefish.compose import compose_config
from cuttlefish.report.admission import objection
from cuttlefish.validate import to_dict

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.mark.parametrize("words", [
    "experiment=reduced/cell model=vgg19 method=imp", "experiment=table1/full_rank model=resnet18 data=cifar10",
    "experiment=table1/cuttlefish_reference model=vgg19 data=cifar100", "experiment=table1/full_rank model=resnet18 data=svhn",
    "experiment=figure1/fixed model=resnet18 data=cifar10",
    *(f"experiment=table1/{method}_reference model=resnet18 data=cifar10" for method in ("lc", "imp", "grasp", "eb", "xnor", "si_fd")),
])  # fmt: skip
def test_what_the_experiments_run_counts(words):
    config = to_dict(compose_config(CONF, words.split()))
    record = {"scale": config["scale"], "data": config["data"]["name"], "method": config["method"]["name"], "config": config}
    assert objection(record) == ""
    config["recipe"]["epochs"] += 1
    assert f"recipe.epochs={config['recipe']['epochs']}" in objection(record)


def test_no_run_of_data_without_a_recipe_counts():
    assert "recipe.epochs=90" in objection({"scale": "paper", "data": "imagenet", "method": "full_rank", "config": {"recipe": {"epochs": 90}}})
    assert objection({"scale": "free", "data": "digits", "method": "full_rank", "config": {}}) == ""
