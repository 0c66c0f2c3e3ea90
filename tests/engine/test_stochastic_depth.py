"""Stochastic depth is a function of seed, step and place in the global batch, however a batch is shared."""

from copy import deepcopy

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import nn
from torch._dynamo.testing import CompileCounter

from cuttlefish.engine.processes.stochastic_depth import StochasticDepth
from cuttlefish.tasks.base import Batch
from cuttlefish.worker import run_config
from tests.helpers.comparing import assert_alike
from tests.helpers.runs import EXACT, little_config

DEIT = {
    "name": "vit_tiny_patch16_224", "source": "timm", "width": None,
    "arguments": {
        "img_size": 12, "patch_size": 4, "embed_dim": 16, "depth": 4, "num_heads": 2, "drop_path_rate": 0.5,
    },
}  # fmt: skip


def batch_of(size, first=0, of=None):
    return Batch(torch.ones(size, 3, 2), torch.zeros(size), of or size, first)


@pytest.fixture
def paths():
    return nn.Sequential(DropPath(0.25), nn.Identity(), DropPath(0.5, scale_by_keep=False), DropPath(0.0))


def test_parts_of_a_batch_keep_what_the_whole_batch_keeps(paths):
    depth, x = StochasticDepth(paths, 7), torch.ones(12, 3, 2)
    depth.choose(batch_of(12), 3)
    whole = paths(x)
    for part in batch_of(12).parts(5):
        depth.choose(part, 3)
        assert torch.equal(paths(x[: len(part)]), whole[part.first : part.first + len(part)])
    depth.choose(batch_of(12), 4)
    assert not torch.equal(paths(x), whole), "another step keeps others"


def test_it_keeps_as_often_and_as_much_as_timm(paths):
    depth, many = StochasticDepth(paths, 0), 40_000
    depth.choose(batch_of(many), 0)
    first, second = paths[0](torch.ones(many, 1)), paths[2](torch.ones(many, 1))
    assert first.unique().tolist() == [0, pytest.approx(4 / 3)] and second.unique().tolist() == [0, 1]
    assert first.mean() == pytest.approx(1, abs=0.02) and second.mean() == pytest.approx(0.5, abs=0.02)
    assert torch.corrcoef(torch.stack([first[:, 0], second[:, 0]]))[0, 1].abs() < 0.02


def test_other_passes_draw_as_ever_and_evaluation_keeps_all(paths):
    kinds = [type(path) for path in paths]
    depth, x = StochasticDepth(paths, 0), torch.ones(64, 1)
    assert isinstance(paths[0], DropPath) and type(paths[3]) is kinds[3] and not paths.state_dict()
    torch.manual_seed(1)
    drawn = paths(x)
    depth.choose(batch_of(8), 0)
    torch.manual_seed(1)
    assert torch.equal(paths(x), drawn), "a pass of another size is none of the step's"
    depth.forget()
    torch.manual_seed(1)
    assert torch.equal(paths(x), drawn)
    assert torch.equal(paths.eval()(x), x)
    again = StochasticDepth(deepcopy(paths), 0)
    assert [type(path) for path in again.paths] == [type(path) for path in depth.paths]


def test_two_processes_drop_what_one_drops(tmp_path):
    settings = {**EXACT, "model": DEIT, "trainer__sync_bn": False, "recipe__epochs": 2}
    alone = run_config(little_config(tmp_path / "alone", **settings))
    dropless = deepcopy(DEIT)
    dropless["arguments"]["drop_path_rate"] = 0.0
    other = run_config(little_config(tmp_path / "other", **settings | {"model": dropless}))
    assert alone.loss_final != other.loss_final
    settings |= {"trainer__devices": 2, "recipe__accumulate": 3}
    together = run_config(little_config(tmp_path / "together", **settings))
    assert_alike(tmp_path / "alone", alone, tmp_path / "together", together)


def test_recomputed_activations_drop_the_same(tmp_path):
    runs = [
        run_config(
            little_config(
                tmp_path / str(recompute), model=DEIT, trainer__recompute=recompute, recipe__epochs=2
            )
        )
        for recompute in (False, True)
    ]
    assert runs[0].loss_final == pytest.approx(runs[1].loss_final, rel=1e-5)


def test_a_compiled_model_is_compiled_once():
    model = timm.create_model(DEIT["name"], num_classes=4, **DEIT["arguments"])
    depth, counter = StochasticDepth(model, 0), CompileCounter()
    torch._dynamo.reset()
    compiled, x = torch.compile(model, backend=counter, dynamic=False), torch.ones(6, 3, 12, 12)
    for step in range(3):
        depth.choose(batch_of(6), step)
        expected = model(x)
        torch.testing.assert_close(compiled(x), expected)
    assert counter.frame_count == 1
    torch._dynamo.reset()
