"""Run arms in processes of their own that take turns, so that a slowdown of the machine affects all of them.

An arm prints one line of facts when it is ready, then does one piece of work per input line and prints its
seconds. Waiting costs nothing, and settings that a process cannot undo (the allocator) may differ.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import torch
import yaml

Rows = list[dict[str, Any]]
CONF = Path(__file__).resolve().parents[2] / "conf"
SPEC: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "benches.yaml").read_text(encoding="utf-8"))
"""Networks trained in benches; see benches.yaml."""


class Taken(NamedTuple):
    """Results. facts, seconds: one entry per arm, its seconds one per round; product: the median rate of the
    matrix product in the same rounds, FLOP/s."""

    facts: Rows
    seconds: list[list[float]]
    product: float


def take_turns(module: str, arms: Rows, rounds: int, device: str) -> Taken:
    """Run `python -m module <arm as JSON>` for every arm. Raises RuntimeError if one dies."""
    children: list[subprocess.Popen[str]] = []
    try:
        # Started one after the other, or they would slow each other down.
        facts = [_start(module, arm, children) for arm in arms]
        seconds: list[list[float]] = [[] for _ in arms]
        products = []
        for _ in range(rounds):
            products.append(matmul_rate(device))
            for taken, child, arm in zip(seconds, children, arms, strict=True):
                child.stdin.write("go\n")
                child.stdin.flush()
                taken.append(_heard(child, arm))
    finally:
        for child in children:
            child.kill()
            child.wait()
    return Taken(facts, seconds, median(products))


def _start(module: str, arm: dict[str, Any], children: list[subprocess.Popen[str]]) -> dict[str, Any]:
    command = [sys.executable, "-m", module, json.dumps(arm)]
    children.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    return _heard(children[-1], arm)


def _heard(child: subprocess.Popen[str], arm: dict[str, Any]) -> Any:
    line = child.stdout.readline()
    if not line:
        raise RuntimeError(f"the arm {arm} ended with exit code {child.wait()}")
    return json.loads(line)


def in_turns(arms: Mapping[str, Callable[[], Any]], rounds: int, device: str) -> dict[str, list[float]]:
    """Return each arm's seconds per round, in this process."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, work in arms.items():
            seconds[name].append(seconds_of(work, device))
    return seconds


def speedups(slow: list[float], fast: list[float]) -> dict[str, float]:
    """Return the median and the extremes of the rounds' ratios."""
    ratios = [one / other for one, other in zip(slow, fast, strict=True)]
    return {"speedup": median(ratios), "slowest_speedup": min(ratios), "fastest_speedup": max(ratios)}


def model_choice(name: str) -> dict[str, Any]:
    """Return the values of model=<name>."""
    return yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text(encoding="utf-8"))


def spread(seconds: list[float]) -> dict[str, Any]:
    return {
        "step_s": median(seconds),
        "fastest_s": min(seconds),
        "slowest_s": max(seconds),
        "rounds_s": seconds,
    }


def matmul_rate(device: str) -> float:
    """Return the FLOP/s of a float32 matrix product, TF32 off."""
    torch.backends.cuda.matmul.allow_tf32 = False
    size = 2048
    left, right = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    return 2 * size**3 / min(seconds_of(lambda: left @ right, device) for _ in range(5))


def seconds_of(work: Callable[[], Any], device: str) -> float:
    start = perf_counter()
    work()
    finish(device)
    return perf_counter() - start


def finish(device: str) -> None:
    """Wait until the device has finished all its work."""
    if device == "cuda":
        torch.cuda.synchronize()
