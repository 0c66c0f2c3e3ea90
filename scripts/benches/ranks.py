"""Stable ranks of all layers compared with a full SVD, of random weights and of trained ones."""

from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np
import timm
import torch
from scipy.linalg import svdvals
from torch import Tensor, nn

from cuttlefish.config.schema import ModelConfig
from cuttlefish.config.validate import convert
from cuttlefish.lowrank.find import find_layers
from cuttlefish.lowrank.matrix import unroll
from cuttlefish.lowrank.rank import stable_ranks
from cuttlefish.models import build_model
from scripts.benches.glue_arm import model_config
from scripts.benches.turns import Rows, in_turns, speedups

NETWORKS = ("resnet18", "resnet50", "deit_base_patch16_224")
STEPS = 20


def bench_ranks(device: str, rounds: int, small: bool) -> Rows:
    """Compare our stable ranks of all layers with scipy's svdvals; the error is that to a float64 SVD."""
    return [_row(name, kind, model.to(device), rounds) for name, kind, model in _networks(small)]


def _networks(small: bool) -> Iterator[tuple[str, str, nn.Module]]:
    """Yield name, where the weights come from, and the model: random, after a few steps, pretrained."""
    for name in NETWORKS[: 1 if small else None]:
        torch.manual_seed(0)
        model = _network(name)
        yield name, "random", model
        yield name, f"after {STEPS} steps", _trained(model, adam=name.startswith("deit"))
    if not small:
        config = convert(model_config("minilm"), ModelConfig, "model")
        yield "minilm", "pretrained", build_model(config, 2, None)


def _network(name: str) -> nn.Module:
    if name == "resnet18":
        return build_model(ModelConfig(name=name), 10, (3, 64, 64))
    sizes = {"img_size": 64} if name.startswith("deit") else {}
    return timm.create_model(name, num_classes=10, **sizes)


def _trained(model: nn.Module, adam: bool) -> nn.Module:
    """Train in place on noise, as these networks are trained: largest singular values begin to stand out."""
    device = next(model.parameters()).device
    if adam:
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    for _ in range(STEPS):
        images, labels = torch.randn(16, 3, 64, 64, device=device), torch.randint(10, (16,), device=device)
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def _row(name: str, kind: str, model: nn.Module, rounds: int) -> dict[str, Any]:
    weights = [layer.weight.detach() for layer in find_layers(model).layers.values()]
    device = weights[0].device.type
    matrices = [unroll(weight).cpu().numpy() for weight in weights]
    arms = {"ours": lambda: stable_ranks(weights), "theirs": lambda: list(map(svdvals, matrices))}
    stable_ranks(weights)
    ours, theirs = in_turns(arms, rounds, device).values()
    row = {"model": name, "weights": kind, "layers": len(weights)}
    row |= {"ours_s": median(ours), "svdvals_s": median(theirs), **speedups(theirs, ours)}
    return row | {"relative_error": f"{_error(weights, matrices):.1e}"}


def _error(weights: list[Tensor], matrices: list[np.ndarray]) -> float:
    spectra = [svdvals(matrix.astype(np.float64)) for matrix in matrices]
    exact = [float((sigma**2).sum() / sigma[0] ** 2) for sigma in spectra]
    return max(abs(rank - true) / true for rank, true in zip(stable_ranks(weights), exact, strict=True))
