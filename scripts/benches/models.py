"""Step times of the networks of Tables 2 to 4 on random input: dense, and at ranks of preset=reference."""

import copy
from fnmatch import fnmatchcase
from math import floor
from typing import Any

import torch
from torch import nn

from cuttlefish.config.schema import ModelConfig, TrainerConfig
from cuttlefish.config.validate import convert
from cuttlefish.engine.device import set_up
from cuttlefish.lowrank.rank import full_rank
from cuttlefish.lowrank.surgery import factorize
from cuttlefish.models import build_model
from cuttlefish.tasks.base import Batch
from scripts.benches.step_arm import noise, our_step, step_flops
from scripts.benches.turns import SPEC, Rows, matmul_rate, model_choice, seconds_of, spread

IMAGE = (3, 224, 224)
PRECISIONS = ("bf16", "fp32")
SMALL = 2
"""Batch size of a small bench and on a CPU, whose steps of the recipe's batch take minutes."""


def bench_models(device: str, rounds: int, small: bool) -> Rows:
    """Measure all networks at the recipe's batch of one device, in bf16 and strict fp32."""
    names = list(SPEC["models"])[: 1 if small else None]
    return [
        row
        for precision in PRECISIONS
        for name in names
        for row in model_rows(name, precision, device, rounds, small)
    ]


def model_rows(name: str, precision: str, device: str, rounds: int, small: bool) -> Rows:
    """Return one network's rows in one precision: dense and low-rank."""
    spec = SPEC["models"][name]
    size = SMALL if small or device == "cpu" else spec["batch"]
    torch.manual_seed(0)
    dense = build_model(model_config(name), spec["classes"], None if "tokens" in spec else IMAGE)
    low = low_rank(copy.deepcopy(dense), spec)
    batch = _batch(spec, size, device)
    trainer = TrainerConfig(device=device, precision=precision)
    set_up(trainer, torch.device(device), 0)
    product, rows = matmul_rate(device), []
    for arm, model in (("dense", dense), (spec["arm"], low)):
        row = _measure(model.to(device), spec, batch, trainer, rounds)
        model.cpu()
        row |= {"of_fp32_matmul": row["flops"] / row["step_s"] / product, "matmul_gflop_per_s": product / 1e9}
        rows.append({"model": name, "batch": size, "precision": precision, "arm": arm} | row)
        rows[-1]["speedup_over_dense"] = rows[0]["step_s"] / row["step_s"]
    return rows


def model_config(name: str) -> ModelConfig:
    """Return a network's config with random weights, which need no network connection."""
    return convert(model_choice(name) | {"pretrained": False}, ModelConfig, "model")


def low_rank(model: nn.Module, spec: dict[str, Any]) -> nn.Module:
    """Factorize the layers that match, at the ratio of their full rank, with random factors of usual size."""
    layers = {
        name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    named = [name for name in layers if any(fnmatchcase(name, pattern) for pattern in spec["layers"])]
    ranks = {name: floor(spec["ratio"] * full_rank(layers[name].weight)) for name in named}
    factorize(model, ranks, keep_dense=False, initialise=False)  # random weights need no SVD
    for name in ranks:
        for factor in (model.get_submodule(name).first, model.get_submodule(name).second):
            nn.init.kaiming_normal_(factor.weight, nonlinearity="linear")
    return model


def _batch(spec: dict[str, Any], size: int, device: str) -> Batch:
    if "tokens" not in spec:
        return noise(size, torch.device(device), channels_last=True, shape=IMAGE).example_batch(size)
    shape = (size, spec["tokens"])
    words = torch.randint(spec["words"], shape, device=device)
    inputs = {
        "input_ids": words,
        "attention_mask": torch.ones_like(words),
        "token_type_ids": torch.zeros_like(words),
    }
    return Batch(inputs, torch.randint(spec["classes"], (size,), device=device), size)


def _measure(
    model: nn.Module, spec: dict[str, Any], batch: Batch, trainer: TrainerConfig, rounds: int
) -> dict[str, Any]:
    device, size = trainer.device, len(batch)
    flops = step_flops(model, _batch(spec, 2, device).inputs, size)
    task = noise(2, torch.device(device), channels_last=True)  # for its loss
    step = our_step(model, task, batch, trainer, torch.device(device))
    first = seconds_of(step, device)
    count = 5 if device == "cuda" else 1
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = [seconds_of(lambda: [step() for _ in range(count)], device) / count for _ in range(rounds + 1)]
    row = spread(seconds[1:])
    return row | {
        "samples_per_s": size / row["step_s"],
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
        "first_step_s": first,
        "flops": flops,
    }
