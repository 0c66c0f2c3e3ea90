"""Which convolutions keep the plain layout; nothing damages memory on a CPU with AVX2 only (emulated)."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

from cuttlefish import Cuttlefish
from cuttlefish.config.recipe import RecipeConfig
from cuttlefish.config.schema import ModelConfig, TrainerConfig
from cuttlefish.engine.processes.world import World
from cuttlefish.engine.step import StepRunner
from cuttlefish.lowrank.find import find_layers
from cuttlefish.lowrank.layers import LowRankConv2d
from cuttlefish.lowrank.layout import EXPORT_IS_TOLD, PlainConv2d, is_broken, keep_plain, to_channels_last
from cuttlefish.lowrank.profiling import profile_stacks
from cuttlefish.lowrank.split import merge_layer, split_layer
from cuttlefish.lowrank.surgery import factorize
from cuttlefish.methods import build_method
from cuttlefish.models import build_model
from cuttlefish.tasks.base import Batch
from cuttlefish.tasks.images import ImageTask
from cuttlefish.tasks.resident import ResidentImages
from tests.helpers.runs import little_config

ROOT = Path(__file__).resolve().parents[2]
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}
"""A CPU without AVX-512, and the one thread without which nothing is damaged."""
CHECKED = {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3"}
"""glibc looks behind every block that is given back, and aborts where something was written."""


def images(size: int = 16, channels: int = 3, side: int = 12) -> torch.Tensor:
    return torch.randn(size, channels, side, side).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("arguments", "options", "broken"),
    [
        ((4, 8, 1), {"stride": 2}, True), ((1, 8, 1), {"stride": (1, 2)}, True),
        ((8, 8, 1), {"stride": 2, "groups": 8}, True),
        ((8, 8, 1), {"stride": 2}, False), ((4, 8, 1), {}, False), ((4, 8, 3), {"stride": 2}, False),
    ],
)  # fmt: skip
def test_strided_1x1_convolutions_of_few_channels_are_broken(arguments, options, broken):
    assert is_broken(nn.Conv2d(*arguments, **options)) is broken
    assert (type(keep_plain(nn.Conv2d(*arguments, **options))) is PlainConv2d) is broken


@pytest.mark.parametrize("channels", [1, 5])
def test_a_plain_convolution_computes_the_same_in_plain_layout(channels):
    conv = nn.Conv2d(channels, 8, 1, stride=2)
    plain, given = keep_plain(deepcopy(conv)), images(channels=channels)
    plain.to(memory_format=torch.channels_last)  # whoever moves the model later changes nothing
    found = plain(given)
    expected = conv(given.clone(memory_format=torch.contiguous_format))  # which nothing breaks
    torch.testing.assert_close(found, expected)
    assert found.stride() == torch.empty(found.shape).stride()
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(plain.weight.grad, conv.weight.grad)
    assert plain.state_dict().keys() == conv.state_dict().keys()
    assert torch.equal(pickle.loads(pickle.dumps(plain))(given), deepcopy(plain)(given))


class Shifted(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = keep_plain(nn.Conv2d(4, 8, 1, stride=2))

    def forward(self, given):
        return self.conv(given + 1) + 1


def test_a_plain_convolution_stays_out_of_compiled_graphs():
    """Inductor chooses layouts of its own; what is exported holds the convolution all the same."""
    net, given, graphs = Shifted(), images(channels=4), []
    expected = net(given)

    def backend(module, _):
        graphs.append(module.code)
        return module

    assert torch.equal(torch.compile(net, backend=backend)(given), expected)
    assert len(graphs) == 2 and not any("conv" in graph for graph in graphs)
    for strict in (True, False) if EXPORT_IS_TOLD else (False,):
        assert torch.equal(torch.export.export(net, (given,), strict=strict).module()(given), expected)
    assert torch.equal(torch.jit.script(net)(given), expected)


def test_every_way_to_a_layer_keeps_it_plain():
    dense = keep_plain(nn.Conv2d(4, 16, 1, stride=2, bias=False))
    low = split_layer(dense, 2)
    assert (
        type(low.first) is PlainConv2d
        and type(low.second) is nn.Conv2d
        and type(merge_layer(low)) is PlainConv2d
    )
    spatial = LowRankConv2d(16, 16, 1, rank=4, stride=2, scheme="spatial")
    assert type(spatial.first) is nn.Conv2d and type(spatial.second) is PlainConv2d, (
        "its few channels are the rank"
    )
    assert (
        set(find_layers(nn.Sequential(dense)).layers) == {"0"}
        and not find_layers(nn.Sequential(dense)).refused
    )
    model = build_model(ModelConfig(width=4), 10, (3, 12, 12))
    assert type(model.layer2[0].shortcut[0]) is PlainConv2d and type(model.layer3[0].shortcut[0]) is nn.Conv2d


def test_without_channels_last_weights_and_images_are_plain(tmp_path, monkeypatch):
    """A method's samples and examples come from the same place as the batches."""
    from cuttlefish.engine.run import resolve_run
    from cuttlefish.engine.session import Session

    session = Session(resolve_run(little_config(tmp_path, trainer__channels_last=False, trainer__threads=1)))
    seen = []
    session.context.model.conv1.register_forward_hook(
        lambda conv, given, _: seen.append((given[0], conv.weight))
    )
    session.train()
    assert seen and all(tensor.is_contiguous() for pair in seen for tensor in pair)
    assert (
        session.context.example_batch().inputs.is_contiguous()
        and next(iter(session.context.samples())).inputs.is_contiguous()
    )


def test_images_in_the_plain_layout_are_the_same_images():
    shown = ResidentImages(
        torch.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3).byte(), [0, 1], mean=(0.0,) * 3, std=(1.0,) * 3
    )
    before = shown.example(2).inputs
    shown.channels_last = False
    after = shown.example(2).inputs
    assert torch.equal(before, after) and after.is_contiguous() and not before.is_contiguous()


# What the child process does, in this order; the last name it prints is the one that it died in.


def training() -> None:
    """The suite's own step on a network whose shortcuts are broken."""
    model = build_model(ModelConfig(width=4), 4, (3, 12, 12))
    task = ImageTask(
        "toy",
        "",
        4,
        ResidentImages(torch.zeros(1, 12, 12, 3).byte(), [0], mean=(0.0,) * 3, std=(1.0,) * 3),
        None,
    )
    stage = StepRunner(
        model,
        task,
        build_method({"name": "full_rank"}),
        RecipeConfig(),
        0.01,
        TrainerConfig(),
        World(),
        torch.device("cpu"),
    )
    for _ in range(20):
        stage.step(Batch(images(), torch.randint(4, (16,)), 16), torch.zeros(3, dtype=torch.float64))


def profiling() -> None:
    profile_stacks(build_model(ModelConfig(width=4), 4, (3, 12, 12)), images(), repeats=5, shortcuts=True)


def factors() -> None:
    """Of both schemes: the first factor has few channels, or the rank is small."""
    for scheme, ratio in (("channel", 0.25), ("spatial", 0.2)):
        model = to_channels_last(build_model(ModelConfig(width=8), 4, (3, 12, 12)))
        names = [f"layer{stack}.0.shortcut.0" for stack in (2, 3, 4)]
        factorize(model, {name: max(1, int(ratio * 16)) for name in names}, scheme=scheme, keep_dense=False)
        for _ in range(10):
            model(images()).sum().backward()


def library() -> None:
    """A user's own network, moved to channels_last after Cuttlefish has seen it."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Conv2d(4, 16, 1, stride=2), nn.Conv2d(16, 6, 3), nn.Flatten(), nn.Linear(54, 2)
    )
    cuttlefish = Cuttlefish(net, images(side=12), k=1, switch_epoch=1, rank_ratio=0.25, keep_dense=False)
    net.to(memory_format=torch.channels_last)
    for _ in range(2):
        for _ in range(10):
            net(images(side=12)).sum().backward()
        cuttlefish.epoch_end()
    assert cuttlefish.switched


ROOMS = (training, profiling, factors, library)


def child() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for room in ROOMS:
        print(room.__name__, flush=True)
        room()
    print("done", flush=True)


def test_no_memory_is_damaged_on_a_cpu_with_avx2_only():
    command = [sys.executable, "-c", "from tests.lowrank import test_layout; test_layout.child()"]
    environment = os.environ | AVX2 | (CHECKED if sys.platform == "linux" else {})
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    reached = found.stdout.split()
    assert (found.returncode, reached[-1:]) == (0, ["done"]), (
        f"died in {reached[-1:]}: {found.stderr[-1000:]}"
    )
