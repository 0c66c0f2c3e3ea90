"""Time of a run outside its steps: data, ranks, logging, checkpoints, the profile and the switch."""

from statistics import median

import torch

from cuttlefish.config.schema import ModelConfig
from cuttlefish.lowrank.profiling import profile_stacks
from cuttlefish.lowrank.rank import full_rank
from cuttlefish.lowrank.surgery import factorize
from cuttlefish.models import build_model
from scripts.benches.little_run import epoch_seconds
from scripts.benches.turns import SPEC, Rows, seconds_of

NARROW, FULL = 16, 64
"""Widths of the reduced scale and of the paper."""
NOT_OF_AN_EPOCH = ("evaluate", "start", "switch")


def bench_overhead(device: str, rounds: int, small: bool) -> Rows:
    """Measure shares of an epoch at width 16 (reduced scale), and the one-time cost of profile and switch."""
    recipe, trainer = {"epochs": 4, "batch_size": 128}, {"device": device}
    run = {"recipe": recipe, "trainer": trainer, "method": SPEC["overhead"]}
    epochs = epoch_seconds(width=NARROW, images=2560, **run)
    parts = {name: median(parts.get(name, 0.0) for parts in epochs[1:3]) for name in epochs[-1]}
    parts = {name: seconds for name, seconds in parts.items() if name not in NOT_OF_AN_EPOCH}
    whole = sum(parts.values())
    shares = [
        {"part": name, "per": "epoch", "width": NARROW, "seconds": seconds, "share": seconds / whole}
        for name, seconds in parts.items()
    ]
    models = ("resnet18",) if small else ("resnet18", "vgg19")
    return shares + [row for model in models for row in _once(model, device)]


def bench_checkpoints(device: str, rounds: int, small: bool) -> Rows:
    """Measure a checkpoint after every epoch (the default) relative to that epoch's training: CIFAR's 50,000
    images at full width, and the reduced scale."""
    rows = []
    for width, images in ((NARROW, 10_000),) if small else ((NARROW, 10_000), (FULL, 50_000)):
        # an epoch's row includes the previous epoch's checkpoint
        recipe = {"epochs": rounds + 2, "batch_size": 128}
        epochs = epoch_seconds(width=width, images=128, recipe=recipe, trainer={"device": device})[1:]
        checkpoint = [parts["checkpoint"] for parts in epochs]
        epoch = median(parts["train"] for parts in epochs) * images / 128
        share = {"share_of_epoch": median(checkpoint) / epoch, "largest_share": max(checkpoint) / epoch}
        size = {"model": "resnet18", "width": width, "images": images}
        rows.append(size | {"checkpoint_s": median(checkpoint), "epoch_s": epoch} | share)
    return rows


def _once(name: str, device: str) -> Rows:
    """Time profile (ζ = 11, forward only) and switch of a full-width network, batch 128 (1024 on a GPU)."""
    where = {"device": device, "memory_format": torch.channels_last}
    batch = torch.randn(1024 if device == "cuda" else 128, 3, 32, 32).to(**where)
    model = build_model(ModelConfig(name=name), 10, (3, 32, 32)).to(**where)
    profile = profile_stacks(model, batch, backward=False)
    ranks = {name: max(1, full_rank(model.get_submodule(name).weight) // 4) for name in profile.layers}
    switch = seconds_of(lambda: factorize(model, ranks), device)
    once = {"per": "run", "model": name, "width": FULL}
    return [
        {"part": "profile", **once, "k": profile.k, "seconds": profile.seconds},
        {"part": "switch", **once, "layers": len(ranks), "seconds": switch},
    ]
