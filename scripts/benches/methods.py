"""A training step of every method over full rank's in the same rounds, through the trainer itself."""

from statistics import median
from typing import Any

from scripts.benches.step_arm import PAPER_K
from scripts.benches.turns import Rows, spread, take_turns

IMAGES, BATCHES = 50_000, {"cpu": 128, "cuda": 1024}
ARMS: list[dict[str, Any]] = [
    {"arm": "full_rank", "method": {"name": "full_rank"}},
    {"arm": "cuttlefish, ranks 1/4, Frobenius decay", "after": 1, "k": PAPER_K, "method": {
        "name": "cuttlefish", "switch_epoch": 1, "rank_ratio": 0.25, "frobenius_decay": 1e-4}},
    {"arm": "pufferfish", "after": 1, "k": {"resnet18": 3, "vgg19": 9}, "method": {"name": "pufferfish", "switch_epoch": 1}},
    {"arm": "si_fd, rho 0.2", "method": {"name": "si_fd", "rho": 0.2}},
    {"arm": "lc, L step", "after": 1, "method": {
        "name": "lc", "recipe": {"epochs": 1}, "steps": 2, "epochs_per_l": 1, "ft_epochs": 1, "alpha": 1e-3, "mu0": 2.0}},
    {"arm": "imp, one level pruned", "after": 1, "method": {"name": "imp", "levels": 1, "rewind_epoch": 0, "level_epochs": 1}},
    {"arm": "grasp, nine tenths pruned", "method": {"name": "grasp", "ratio": 0.9}},
    {"arm": "eb, half of the channels", "after": 1, "method": {"name": "eb", "p": 0.5, "fifo": 2, "eps": 1.0, "guard": False}},
    {"arm": "xnor", "method": {"name": "xnor"}},
]  # fmt: skip
"""after: epochs before the phase that is timed, in which the method does what it does once; k: the paper's K by model."""


def method_arms(device: str, model: str, width: int) -> Rows:
    shared = {
        "device": device,
        "batch": BATCHES[device],
        "model": model,
        "width": width,
        "steps": 20 if device == "cuda" else 1,
    }
    arms = [shared | {"after": 0} | arm for arm in ARMS]
    return [arm | {"method": arm["method"] | {"k": arm["k"][model]}} if "k" in arm else arm for arm in arms]


def bench_methods(device: str, rounds: int, small: bool) -> Rows:
    """Masked training at most 1.03, low-rank and slim networks at most 1, XNOR's simulation at most 1.6 of full rank's step."""
    rows = []
    for model, width in (("resnet18", 16),) if small else (("resnet18", 64), ("vgg19", 64)):
        arms = method_arms(device, model, width)
        facts, times, _ = take_turns(
            "scripts.benches.method_arm", [arm | {"rounds": rounds} for arm in arms], rounds, device
        )
        rows += [_row(*arm, times[0]) for arm in zip(arms, facts, times, strict=True)]
    return rows


def _row(
    arm: dict[str, Any], facts: dict[str, Any], seconds: list[float], dense: list[float]
) -> dict[str, Any]:
    """`over_full_rank`: the median of the rounds' own ratios. `once_*`: what the method did before, in seconds and in epochs of a
    dense run over CIFAR's 50,000 images."""
    ratios = [own / full for own, full in zip(seconds, dense, strict=True)]
    epoch = median(dense) * IMAGES / arm["batch"]
    return {
        "model": arm["model"], "width": arm["width"], "batch": arm["batch"], "arm": arm["arm"], "phase": facts["phase"], **spread(seconds),
        "over_full_rank": median(ratios), "lowest_ratio": min(ratios), "highest_ratio": max(ratios), "params_nonzero": facts["params_nonzero"],
        "once_s": facts["once_s"], "once_epochs": facts["once_s"] / epoch,
    }  # fmt: skip
