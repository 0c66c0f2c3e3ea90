"""One arm of `make bench` in its own process: build a network and a step, then time one step per input line.

Arms differ in settings that one process cannot undo (the allocator), and waiting processes cost nothing, so
arms can take turns.
"""

import json
import sys
from math import floor
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cuttlefish.config.recipe import RecipeConfig
from cuttlefish.config.schema import Config, ModelConfig, TrainerConfig
from cuttlefish.engine.device import set_up
from cuttlefish.engine.processes.world import World
from cuttlefish.engine.step import StepRunner
from cuttlefish.lowrank.path import candidates, main_path
from cuttlefish.lowrank.rank import full_rank
from cuttlefish.lowrank.surgery import factorize
from cuttlefish.lowrank.trace import call_model
from cuttlefish.methods import build_method
from cuttlefish.models import build_model
from cuttlefish.tasks.base import Batch, Inputs, Task
from cuttlefish.tasks.images import ImageTask
from cuttlefish.tasks.resident import ResidentImages
from scripts.benches.turns import matmul_rate, seconds_of

SHAPE = (3, 32, 32)


def build(arm: dict[str, Any], device: torch.device) -> nn.Module:
    """Return the arm's network; with `ratio` of full rank in the layers after its K, or dense."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(name=arm["model"], width=arm["width"]), 10, SHAPE)
    if arm.get("ratio"):
        path = main_path(model, torch.zeros(2, *SHAPE))
        names = candidates(model, path, arm["k"])
        ranks = {
            name: max(1, floor(arm["ratio"] * full_rank(model.get_submodule(name).weight))) for name in names
        }
        factorize(model, ranks, extra_bn=arm.get("extra_bn", False), keep_dense=False)
    return model.to(device)


def step_flops(model: nn.Module, two: Inputs, size: int) -> int:
    """Return the FLOPs of a forward and backward pass of `size` samples, measured on two."""
    counter = FlopCounterMode(display=False)
    with counter:
        call_model(model, two).sum().backward()
    model.zero_grad()
    return counter.get_total_flops() * size // 2


def plain_step(model: nn.Module, batch: Batch) -> Any:
    """Return the step of a plain training loop: default layout, default allocator, default SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch.inputs), batch.targets).backward()
        optimizer.step()

    return step


def our_step(model: nn.Module, task: Task, batch: Batch, trainer: TrainerConfig, device: torch.device) -> Any:
    method = build_method(Config().method)
    runner = StepRunner(model, task, method, RecipeConfig(), 0.01, trainer, World(), device)
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    return lambda: runner.step(batch, sums)


def prepare(arm: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the arm's step, and its facts, which include a first step."""
    device = torch.device(arm["device"])
    trainer = TrainerConfig(
        device=arm["device"], precision=arm["precision"], compile=arm.get("compile", False)
    )
    if not arm.get("plain"):
        set_up(trainer, device, 0)
    model = build(arm, device)
    flops = step_flops(model, torch.zeros(2, *SHAPE, device=device), arm["batch"])
    task = noise(arm["batch"], device, channels_last=not arm.get("plain"))
    batch = task.example_batch(arm["batch"])
    step = plain_step(model, batch) if arm.get("plain") else our_step(model, task, batch, trainer, device)
    return step, {"flops": flops, "first_step": seconds_of(step, arm["device"])}


def noise(
    count: int, device: torch.device, channels_last: bool, shape: tuple[int, int, int] = SHAPE
) -> ImageTask:
    """Return a task of random pixels and labels."""
    channels, height, width = shape
    pixels, labels = torch.randint(256, (count, height, width, channels)), torch.randint(10, (count,))
    images = ResidentImages(
        pixels.to(torch.uint8), labels, mean=[0.5] * 3, std=[0.25] * 3, device=device,
        channels_last=channels_last,
    )  # fmt: skip
    return ImageTask("noise", "", 10, images, images)


def seconds_a_step(arm: dict[str, Any], step: Any) -> float:
    """Time one round."""
    steps = arm.get("steps", 1)
    return seconds_of(lambda: [step() for _ in range(steps)], arm["device"]) / steps


def measure_here(arm: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Return an arm's facts, seconds per round, and the preceding matrix product's rate, in this process."""
    if arm.get("plain"):
        set_up(TrainerConfig(device=arm["device"]), torch.device(arm["device"]), 0)  # in strict fp32
        torch.backends.cudnn.benchmark = False
    product = matmul_rate(arm["device"])
    step, facts = prepare(arm)
    seconds_a_step(arm, step)  # the first steps warm the device up
    return {
        "facts": facts, "seconds": [seconds_a_step(arm, step) for _ in range(rounds)], "product": product,
    }  # fmt: skip


def main() -> None:
    arm = json.loads(sys.argv[1])
    step, facts = prepare(arm)
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        print(json.dumps(seconds_a_step(arm, step)), flush=True)


if __name__ == "__main__":
    main()
