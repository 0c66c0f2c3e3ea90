"""Training step of every method relative to full rank in the same rounds, in the real trainer."""

from statistics import median
from typing import Any

from scripts.benches.turns import SPEC, Rows, spread, take_turns

IMAGES, BATCHES = 50_000, {"cpu": 128, "cuda": 1024}


def method_arms(device: str, model: str, width: int) -> Rows:
    shared = {"device": device, "batch": BATCHES[device], "steps": 20 if device == "cuda" else 1}
    shared |= {"model": model, "width": width}
    arms = [shared | {"after": 0} | arm for arm in SPEC["methods"]]
    return [arm | {"method": arm["method"] | {"k": arm["k"][model]}} if "k" in arm else arm for arm in arms]


def bench_methods(device: str, rounds: int, small: bool) -> Rows:
    """Time the steps. Expected ratios to full rank: masked training at most 1.03, low-rank and slim networks
    at most 1, XNOR's simulation at most 1.6."""
    rows = []
    for model, width in (("resnet18", 16),) if small else (("resnet18", 64), ("vgg19", 64)):
        arms = method_arms(device, model, width)
        facts, times, _ = take_turns(
            "scripts.benches.method_arm", [arm | {"rounds": rounds} for arm in arms], rounds, device
        )
        rows += [_row(*arm, times[0]) for arm in zip(arms, facts, times, strict=True)]
        rows[-len(arms)]["baseline"] = True
    return rows


def _row(
    arm: dict[str, Any], facts: dict[str, Any], seconds: list[float], dense: list[float]
) -> dict[str, Any]:
    """Return a row. `over_full_rank`: the median of the rounds' ratios. `once_*`: the method's earlier work,
    in seconds and in epochs of a dense run over CIFAR's 50,000 images."""
    ratios = [own / full for own, full in zip(seconds, dense, strict=True)]
    epoch = median(dense) * IMAGES / arm["batch"]
    return {
        "model": arm["model"], "width": arm["width"], "batch": arm["batch"], "arm": arm["arm"],
        "baseline": False, "phase": facts["phase"], **spread(seconds),
        "over_full_rank": median(ratios), "lowest_ratio": min(ratios), "highest_ratio": max(ratios),
        "params_nonzero": facts["params_nonzero"],
        "once_s": facts["once_s"], "once_epochs": facts["once_s"] / epoch,
    }  # fmt: skip
