"""Step times of dense and low-rank networks by model, width and precision, and eager against compiled."""

from statistics import median
from typing import Any

from scripts.benches.step_arm import measure_here
from scripts.benches.turns import SPEC, Rows, Taken, spread, take_turns

RATIOS = (("dense", None), ("rank 1/4", 0.25), ("rank 1/8", 0.125), ("rank 0.23, odd", 0.23))
"""The last gives ranks that are no multiples of 8, in which tensor cores count, like ranks that are found."""


def step_arms(device: str, small: bool) -> Rows:
    """Return the arms; `plain` is an ordinary training loop."""
    batch = 1024 if device == "cuda" else 128
    shared = {"device": device, "batch": batch, "precision": "fp32", "steps": 20 if device == "cuda" else 1}
    arms = []
    for model in ("resnet18",) if small else ("resnet18", "vgg19"):
        base = shared | {"model": model, "width": 64, "k": SPEC["k"][model]}
        arms.append(base | {"arm": "plain loop, dense", "plain": True})
        for precision in ("fp32", "bf16") if device == "cpu" else ("fp32", "tf32", "bf16"):
            for name, ratio in RATIOS if device == "cuda" else RATIOS[:3]:
                arms.append(base | {"arm": name, "ratio": ratio, "precision": precision})
        arms.append(base | {"arm": "rank 1/4, extra BN", "ratio": 0.25, "extra_bn": True})
    narrow = shared | {"model": "resnet18", "width": 16, "steps": 4, "k": SPEC["k"]["resnet18"]}
    return [*arms, narrow | {"arm": "dense", "ratio": None}, narrow | {"arm": "rank 1/4", "ratio": 0.25}]


def compile_arms(device: str, model: str) -> Rows:
    """Return the arms for compiling, one bench per network because an arm takes a CPU a minute."""
    batch = 1024 if device == "cuda" else 128
    shared = {"device": device, "batch": batch, "width": 64, "steps": 20 if device == "cuda" else 1}
    shared |= {"model": model, "k": SPEC["k"][model]}
    return [
        shared
        | {"precision": precision, "ratio": ratio, "compile": compiled}
        | {"arm": f"{name}{', compiled' if compiled else ''}"}
        for precision in ("fp32", "bf16")
        for name, ratio in (("dense", None), ("rank 1/4", 0.25))
        for compiled in (False, True)
    ]


def bench_steps(device: str, rounds: int, small: bool) -> Rows:
    """Measure seconds per training step, and the share of the matrix product's rate in the same rounds."""
    return _by_network(step_arms(device, small), rounds, device)


def bench_compile(device: str, rounds: int, small: bool, model: str) -> Rows:
    """Measure the same for eager against compiled; `first_step_s` includes the compilation."""
    return _by_network(compile_arms(device, model), rounds, device)


def _by_network(arms: Rows, rounds: int, device: str) -> Rows:
    """Run group by group to save memory: only arms that are compared with one another are alive together."""
    rows = []
    for key in dict.fromkeys((arm["model"], arm["width"]) for arm in arms):
        group = [arm for arm in arms if (arm["model"], arm["width"]) == key]
        # A GPU's memory does not hold all arms at once; its times are steady without turns.
        if device == "cuda":
            taken = gathered([measure_here(arm, rounds) for arm in group])
        else:
            taken = take_turns("scripts.benches.step_arm", group, rounds, device)
        rows += rows_of(group, taken)
    return rows


def gathered(measured: Rows) -> Taken:
    """Return the results of `measure_here`, arm by arm, together."""
    facts, seconds = [one["facts"] for one in measured], [one["seconds"] for one in measured]
    return Taken(facts, seconds, median(one["product"] for one in measured))


def rows_of(arms: Rows, taken: Taken) -> Rows:
    """Return the rows of arms that were measured together."""
    dense = {
        arm["precision"]: median(seconds)
        for arm, seconds in zip(arms, taken.seconds, strict=True)
        if arm["arm"] == "dense"
    }
    return [_row(*arm, taken.product, dense) for arm in zip(arms, taken.seconds, taken.facts, strict=True)]


def _row(
    arm: dict[str, Any], seconds: list[float], facts: dict[str, Any], product: float, dense: dict[str, float]
) -> dict[str, Any]:
    rate = facts["flops"] / median(seconds)
    full = dense.get(arm["precision"])
    return {
        "model": arm["model"], "width": arm["width"], "batch": arm["batch"], "precision": arm["precision"],
        "arm": arm["arm"], **spread(seconds),
        "gflop_per_s": rate / 1e9, "of_fp32_matmul": rate / product, "matmul_gflop_per_s": product / 1e9,
        "speedup_over_dense": None if full is None else full / median(seconds),
        "first_step_s": facts["first_step"],
        "flops": facts["flops"],
    }  # fmt: skip
