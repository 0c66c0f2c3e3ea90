"""The types of the public names, which `pyrefly check` (make test) reads in this file, too."""

import ast
from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor, nn

import cuttlefish
from cuttlefish import Cuttlefish, EpochReport, RankTracker, compress, factorize, plan, stable_rank


def test_public_names_have_the_types_that_they_are_said_to_have() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4))
    batch: Tensor = torch.randn(4, 8)
    cf = assert_type(Cuttlefish(model, batch, k=1, switch_epoch=1, rank_ratio=0.25), Cuttlefish)
    report = assert_type(cf.epoch_end(), EpochReport)
    assert assert_type(report.ranks, dict[str, int]) == {"1": 4}
    assert assert_type(cf.switch_epoch, int | None) == 1
    assert assert_type(stable_rank(batch), float) >= 1
    assert "1" in plan(model)["layers"]
    assert_type(RankTracker(model, ["0"]).update(), dict[str, float])
    assert_type(compress(factorize(model, {}), ratio=0.5).parameters_after, int)


def test_type_checkers_see_every_public_name() -> None:
    tree = ast.parse(Path(cuttlefish.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == cuttlefish._HOMES
