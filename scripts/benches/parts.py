"""What a run spends outside its steps: data, ranks, logging, checkpoints, the profile and the switch."""

import tempfile
from statistics import median
from typing import Any

import torch

from cuttlefish.config.schema import ModelConfig
from cuttlefish.config.validate import load_config
from cuttlefish.lowrank.profiling import profile_stacks
from cuttlefish.lowrank.rank import full_rank
from cuttlefish.lowrank.surgery import factorize
from cuttlefish.models import build_model
from cuttlefish.record.folder import read_epochs
from cuttlefish.worker import run_config
from scripts.benches.turns import Rows, seconds_of

MODEL, NARROW, FULL = "resnet18", 16, 64
"""The network, its width at the reduced scale, and its full width."""
NOT_OF_AN_EPOCH = ("evaluate", "start", "switch")


def bench_overhead(device: str, rounds: int, small: bool) -> Rows:
    """Shares of an epoch at width 16, the reduced scale's; and what profile and switch cost once."""
    with tempfile.TemporaryDirectory() as folder:
        rows = _epochs(
            folder, device, "cuttlefish", k=5, switch_epoch=3, rank_ratio=0.25, frobenius_decay=1e-4
        )
    parts = {name: median(row["seconds"].get(name, 0.0) for row in rows[1:3]) for name in rows[-1]["seconds"]}
    parts = {name: seconds for name, seconds in parts.items() if name not in NOT_OF_AN_EPOCH}
    whole = sum(parts.values())
    shares = [
        {"part": name, "per": "epoch", "width": NARROW, "seconds": seconds, "share": seconds / whole}
        for name, seconds in parts.items()
    ]
    return shares + [
        row for model in (("resnet18",) if small else ("resnet18", "vgg19")) for row in _once(model, device)
    ]


def bench_checkpoints(device: str, rounds: int, small: bool) -> Rows:
    """A checkpoint after every epoch, the default, over that epoch's training: CIFAR's 50,000 images at full width, and the reduced scale."""
    rows = []
    for width, images in ((NARROW, 10_000),) if small else ((NARROW, 10_000), (FULL, 50_000)):
        with tempfile.TemporaryDirectory() as folder:
            found = [
                row["seconds"]
                for row in _epochs(folder, device, "full_rank", width=width, images=128, epochs=rounds + 2)[
                    1:
                ]
            ]
        checkpoint = [
            parts["checkpoint"] for parts in found
        ]  # a row holds the checkpoint of the epoch before
        epoch = median(parts["train"] for parts in found) * images / 128
        share = {"share_of_epoch": median(checkpoint) / epoch, "largest_share": max(checkpoint) / epoch}
        rows.append(
            {
                "model": MODEL,
                "width": width,
                "images": images,
                "checkpoint_s": median(checkpoint),
                "epoch_s": epoch,
                **share,
            }
        )
    return rows


def _epochs(
    folder: str,
    device: str,
    method: str,
    width: int = NARROW,
    images: int = 2560,
    epochs: int = 4,
    **knobs: Any,
) -> list[dict[str, Any]]:
    mapping = {
        "model": {"name": MODEL, "width": width},
        "data": {
            "name": "synthetic",
            "kind": "synthetic",
            "train_images": images,
            "test_images": 10,
            "crop_padding": 4,
            "flip": True,
        },
        "recipe": {"epochs": epochs, "batch_size": 128},
        "trainer": {"device": device},
        "logger": {"console": False, "plots": False, "wandb": {"mode": "disabled"}},
        "method": {"name": method, **knobs},
    }
    run_config(load_config(mapping | {"run_dir": folder}))
    return read_epochs(folder)


def _once(name: str, device: str) -> Rows:
    """Profile (ζ = 11, forward only) and switch of a full-width network, batch 128 (1024 on a GPU)."""
    batch = torch.randn(1024 if device == "cuda" else 128, 3, 32, 32, device=device).contiguous(
        memory_format=torch.channels_last
    )
    model = (
        build_model(ModelConfig(name=name), 10, (3, 32, 32)).to(device).to(memory_format=torch.channels_last)
    )
    profile = profile_stacks(model, batch, backward=False)
    ranks = {name: max(1, full_rank(model.get_submodule(name).weight) // 4) for name in profile.layers}
    switch = seconds_of(lambda: factorize(model, ranks), device)
    once = {"per": "run", "model": name, "width": FULL}
    return [
        {"part": "profile", **once, "k": profile.k, "seconds": profile.seconds},
        {"part": "switch", **once, "layers": len(ranks), "seconds": switch},
    ]
