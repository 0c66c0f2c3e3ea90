"""The library's own cost: the switch beside one by full SVDs, and the calls of a loop beside its steps."""

import copy
import subprocess
import sys
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import nn

from cuttlefish.auto import Cuttlefish
from cuttlefish.lowrank.matrix import full_rank, truncated_svds, unroll
from cuttlefish.lowrank.path import candidates, main_path
from cuttlefish.lowrank.surgery import factorize
from scripts.benches.turns import Rows, in_turns, seconds_of, speedups

SWITCHED = ("convnext_tiny", "deit_base_patch16_224")
LOOPS = {"resnet18": 32, "deit_small_patch16_224": 8}
"""Network → batch size, images of 224 × 224."""


def bench_library(device: str, rounds: int, small: bool) -> Rows:
    """Time the import, the switch at a quarter of full rank both ways, and an epoch's end beside a step."""
    switches = [_switch(name, device, rounds) for name in SWITCHED[: 1 if small else None]]
    loops = list(LOOPS.items())[: 1 if small else None]
    return [_import(rounds), *switches, *(_loop(name, size, device, rounds) for name, size in loops)]


def _import(rounds: int) -> dict[str, Any]:
    """Time new processes that import torch, and the whole library beside it, in turns."""
    codes = ("import torch", "import torch; from cuttlefish import *")
    arms = {code: partial(subprocess.run, [sys.executable, "-c", code], check=True) for code in codes}
    bare, whole = in_turns(arms, rounds + 2, "cpu").values()
    over = [more - less for more, less in zip(whole, bare, strict=True)]
    return {"part": "import over torch", "ours_s": median(over), "torch_s": median(bare)}


def _switch(name: str, device: str, rounds: int) -> dict[str, Any]:
    model = _network(name).to(device)
    names = candidates(model, main_path(model, torch.zeros(2, 3, 224, 224, device=device)))
    weights = {layer: model.get_submodule(layer).weight for layer in names}
    ranks = {layer: max(1, full_rank(weight) // 4) for layer, weight in weights.items()}
    ours, svd = [], []
    for _ in range(rounds):
        for times, exact in ((ours, False), (svd, True)):
            switch = partial(factorize, copy.deepcopy(model), ranks, keep_dense=False, exact=exact)
            times.append(seconds_of(switch, device))
    worst = max(_excess(weight, ranks[layer]) for layer, weight in weights.items())
    return {
        "part": f"switch of {name}",
        "layers": len(names),
        "ours_s": median(ours),
        "svd_s": median(svd),
        **speedups(svd, ours),
        "excess_error": f"{worst:.1e}",
    }


def _excess(weight: torch.Tensor, rank: int) -> float:
    """Return how far ‖W − U·Vᵀ‖² is above the least possible, relative to that; factors not yet rounded."""
    matrix = unroll(weight.detach()).cpu()
    U, Vt = next(truncated_svds([(matrix, rank)]))
    exact = matrix.double()
    least = torch.linalg.svdvals(exact)[rank:].square().sum()
    return float((exact - U @ Vt).square().sum() / least - 1)


def _loop(name: str, size: int, device: str, rounds: int) -> dict[str, Any]:
    model, images = _network(name).to(device), torch.randn(size, 3, 224, 224, device=device)
    cf = Cuttlefish(model, images, epochs=1000, k=1, switch_epoch=900, rank_ratio=0.25)
    optimizer = torch.optim.AdamW(cf.param_groups(0.05), lr=1e-4, fused=True)

    def step() -> None:
        model(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    steps = [seconds_of(step, device) for _ in range(rounds)]
    ends = [seconds_of(cf.epoch_end, device) for _ in range(rounds)]
    return {
        "part": f"epoch_end of {name}",
        "layers": len(cf.layers),
        "ours_s": median(ends),
        "step_s": median(steps),
        "steps_a_call_costs": median(ends) / median(steps),
    }


def _network(name: str) -> nn.Module:
    import timm

    torch.manual_seed(0)
    return timm.create_model(name)
