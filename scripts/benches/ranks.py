"""Stable ranks of all layers compared with a full SVD."""

from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.linalg import svdvals

from cuttlefish.config.schema import ModelConfig
from cuttlefish.lowrank.path import main_path
from cuttlefish.lowrank.rank import stable_ranks
from cuttlefish.models import build_model
from scripts.benches.turns import Rows, seconds_of


def bench_ranks(device: str, rounds: int, small: bool) -> Rows:
    """Compare our stable ranks of all layers with scipy's svdvals; the error is that to a float64 SVD."""
    return [_row(model, device, rounds) for model in (("resnet18",) if small else ("resnet18", "vgg19"))]


def _row(name: str, device: str, rounds: int) -> dict[str, Any]:
    model = build_model(ModelConfig(name=name), 10, (3, 32, 32)).to(device)
    weights = [
        layer.module.weight.detach() for layer in main_path(model, torch.zeros(2, 3, 32, 32, device=device))
    ]
    matrices = [weight.flatten(1).cpu().numpy() for weight in weights]
    ours, theirs = [], []
    stable_ranks(weights)
    for _ in range(rounds):
        ours.append(seconds_of(lambda: stable_ranks(weights), device))
        theirs.append(seconds_of(lambda: [svdvals(matrix) for matrix in matrices], "cpu"))
    exact = [
        float((s**2).sum() / s[0] ** 2) for s in (svdvals(matrix.astype(np.float64)) for matrix in matrices)
    ]
    error = max(abs(rank - true) / true for rank, true in zip(stable_ranks(weights), exact, strict=True))
    ratios = [slow / fast for fast, slow in zip(ours, theirs, strict=True)]
    row = {"model": name, "width": 64, "layers": len(weights)}
    row |= {"ours_s": median(ours), "svdvals_s": median(theirs), "speedup": median(ratios)}
    row |= {"slowest_speedup": min(ratios), "fastest_speedup": max(ratios)}
    return row | {"relative_error": f"{error:.1e}"}
