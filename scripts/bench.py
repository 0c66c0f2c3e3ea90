"""`make bench`: speed as ratios measured in one run, written to results/bench with the hardware in the file name.

Arms take turns, round after round, so that a machine that slows down slows all of them; shown are medians and spreads.
Run it with nothing beside it.

    python -m scripts.bench [ranks | steps | compile | overhead ...] [--rounds 5] [--device cpu|cuda] [--small]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.linalg import svdvals

from cuttlefish.config import ModelConfig, TrainerConfig
from cuttlefish.engine.device import set_up
from cuttlefish.files import write_atomic
from cuttlefish.lowrank.profiling import main_path, profile_stacks
from cuttlefish.lowrank.rank import full_rank, stable_ranks
from cuttlefish.lowrank.surgery import factorize
from cuttlefish.models import build_model
from cuttlefish.provenance import device_name, git_commit, git_dirty, package_versions, utc_now
from cuttlefish.run_folder import read_epochs
from cuttlefish.validate import load_config
from cuttlefish.worker import run_config

RESULTS = Path(__file__).resolve().parent.parent / "results" / "bench"
Rows = list[dict[str, Any]]


def step_arms(device: str, small: bool) -> Rows:
    """model × width × what × precision × compile; `plain` is the loop everybody writes."""
    batch = 1024 if device == "cuda" else 128
    shared = {"device": device, "batch": batch, "precision": "fp32", "steps": 20 if device == "cuda" else 1}
    arms = []
    for model in ("resnet18",) if small else ("resnet18", "vgg19"):
        base = shared | {"model": model, "width": 64}
        arms.append(base | {"arm": "plain loop, dense", "plain": True})
        for precision in ("fp32", "bf16") if device == "cpu" else ("fp32", "tf32", "bf16"):
            for name, ratio in (("dense", None), ("rank 1/4", 0.25), ("rank 1/8", 0.125)):
                arms.append(base | {"arm": name, "ratio": ratio, "precision": precision})
        arms.append(base | {"arm": "rank 1/4, extra BN", "ratio": 0.25, "extra_bn": True})
    narrow = shared | {"model": "resnet18", "width": 16, "steps": 4}
    return [*arms, narrow | {"arm": "dense", "ratio": None}, narrow | {"arm": "rank 1/4", "ratio": 0.25}]


def compile_arms(device: str, small: bool) -> Rows:
    """model × precision × what × eager or compiled; compiling costs a minute an arm on a CPU, so they are a bench of their own."""
    batch = 1024 if device == "cuda" else 128
    shared = {"device": device, "batch": batch, "width": 64, "steps": 20 if device == "cuda" else 1}
    return [
        shared | {"model": model, "precision": precision, "ratio": ratio, "compile": compiled, "arm": f"{name}{', compiled' if compiled else ''}"}
        for model in (("resnet18",) if small else ("resnet18", "vgg19"))
        for precision in ("fp32", "bf16")
        for name, ratio in (("dense", None), ("rank 1/4", 0.25))
        for compiled in (False, True)
    ]


def bench_steps(device: str, rounds: int, small: bool) -> Rows:
    """Seconds a training step, and the share of the matrix product's rate that it reaches in the same rounds."""
    return _by_network(step_arms(device, small), rounds, device)


def bench_compile(device: str, rounds: int, small: bool) -> Rows:
    """The same for eager against compiled; `first_step_s` holds the compilation."""
    return _by_network(compile_arms(device, small), rounds, device)


def _by_network(arms: Rows, rounds: int, device: str) -> Rows:
    rows = []
    # Group by group, for memory's sake: the arms that are compared with one another are alive together.
    for key in dict.fromkeys((arm["model"], arm["width"]) for arm in arms):
        rows += _take_turns([arm for arm in arms if (arm["model"], arm["width"]) == key], rounds, device)
    return rows


def _take_turns(arms: Rows, rounds: int, device: str) -> Rows:
    children = []
    for arm in arms:
        command = [sys.executable, "-m", "scripts.bench_arm", json.dumps(arm)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        children.append((child, json.loads(child.stdout.readline())))
    times: list[list[float]] = [[] for _ in arms]
    products = []
    for _ in range(rounds):
        products.append(matmul_rate(device))
        for seconds, (child, _) in zip(times, children, strict=True):
            child.stdin.write("go\n")
            child.stdin.flush()
            seconds.append(json.loads(child.stdout.readline()))
    for child, _ in children:
        child.stdin.close()
        child.wait()
    dense = {arm["precision"]: median(seconds) for arm, seconds in zip(arms, times, strict=True) if arm["arm"] == "dense"}
    return [
        _step_row(arm, seconds, facts, median(products), dense[arm["precision"]])
        for arm, seconds, (_, facts) in zip(arms, times, children, strict=True)
    ]


def _step_row(arm: dict[str, Any], seconds: list[float], facts: dict[str, Any], product: float, dense: float) -> dict[str, Any]:
    rate = facts["flops"] / median(seconds)
    return {
        "model": arm["model"], "width": arm["width"], "batch": arm["batch"], "precision": arm["precision"], "arm": arm["arm"],
        "step_s": median(seconds), "fastest_s": min(seconds), "slowest_s": max(seconds), "gflop_per_s": rate / 1e9,
        "of_fp32_matmul": rate / product, "matmul_gflop_per_s": product / 1e9, "speedup_over_dense": dense / median(seconds),
        "first_step_s": facts["first_step"], "flops": facts["flops"],
    }  # fmt: skip


def matmul_rate(device: str, size: int = 2048) -> float:
    """FLOP/s of a float32 matrix product, TF32 off."""
    torch.backends.cuda.matmul.allow_tf32 = False
    left, right = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    return 2 * size**3 / min(_seconds(lambda: left @ right, device) for _ in range(5))


def bench_ranks(device: str, rounds: int, small: bool) -> Rows:
    """Stable ranks of all ResNet-18 layers: ours against scipy's svdvals, with the error against a float64 SVD."""
    model = build_model(ModelConfig(), 10, (3, 32, 32)).to(device)
    weights = [layer.module.weight.detach() for layer in main_path(model, torch.zeros(2, 3, 32, 32, device=device))]
    matrices = [weight.flatten(1).cpu().numpy() for weight in weights]
    ours, theirs = [], []
    stable_ranks(weights)
    for _ in range(rounds):
        ours.append(_seconds(lambda: stable_ranks(weights), device))
        theirs.append(_seconds(lambda: [svdvals(matrix) for matrix in matrices], "cpu"))
    exact = [float((s**2).sum() / s[0] ** 2) for s in (svdvals(matrix.astype(np.float64)) for matrix in matrices)]
    error = max(abs(rank - true) / true for rank, true in zip(stable_ranks(weights), exact, strict=True))
    ratios = [slow / fast for fast, slow in zip(ours, theirs, strict=True)]
    row = {"layers": len(weights), "ours_s": median(ours), "svdvals_s": median(theirs), "speedup": median(ratios)}
    return [row | {"slowest_speedup": min(ratios), "fastest_speedup": max(ratios), "relative_error": f"{error:.1e}"}]


def bench_overhead(device: str, rounds: int, small: bool) -> Rows:
    """What an epoch costs outside forward, backward and step; and what the profile and the switch cost once."""
    epochs = 4
    mapping = {
        "model": {"name": "resnet18", "width": 16},
        "data": {"name": "synthetic", "kind": "synthetic", "train_images": 2560, "test_images": 10, "crop_padding": 4, "flip": True},
        "recipe": {"epochs": epochs, "batch_size": 128},
        "trainer": {"device": device},
        "sink": {"console": False, "plots": False, "wandb": {"mode": "disabled"}},
        "method": {"name": "cuttlefish", "k": 5, "switch_epoch": 3, "rank_ratio": 0.25, "frobenius_decay": 1e-4},
    }
    with tempfile.TemporaryDirectory() as folder:
        run_config(load_config(mapping | {"run_dir": folder}))
        rows = read_epochs(folder)
    parts = {name: median(row["seconds"].get(name, 0.0) for row in rows[1:3]) for name in rows[-1]["seconds"]}
    whole = sum(seconds for name, seconds in parts.items() if name not in ("evaluate", "start", "switch"))
    return [
        {"what": f"{name} (share of an epoch, width 16)", "seconds": seconds, "share": seconds / whole}
        for name, seconds in parts.items()
        if name not in ("evaluate", "start", "switch")
    ] + _once(device)


def _once(device: str) -> Rows:
    """Profile (ζ = 11, forward only and with backward) and switch of a full-width ResNet-18, batch 128 (1024 on a GPU)."""
    batch = torch.randn(1024 if device == "cuda" else 128, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    model = build_model(ModelConfig(), 10, (3, 32, 32)).to(device).to(memory_format=torch.channels_last)
    profile = profile_stacks(model, batch, backward=False)
    ranks = {name: max(1, full_rank(model.get_submodule(name).weight) // 4) for name in profile.layers}
    switch = _seconds(lambda: factorize(model, ranks), device)
    return [
        {"what": f"profile, forward only, width 64: K = {profile.k}", "seconds": profile.seconds, "share": None},
        {"what": f"switch, {len(ranks)} layers, width 64", "seconds": switch, "share": None},
    ]


def _seconds(work: Callable[[], Any], device: str) -> float:
    start = perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - start


BENCHES = {"ranks": bench_ranks, "steps": bench_steps, "compile": bench_compile, "overhead": bench_overhead}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=list(BENCHES), help=" | ".join(BENCHES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="ResNet-18 only")
    options = parser.parse_args()
    set_up(TrainerConfig(device=options.device), torch.device(options.device), 0)
    hardware = device_name(options.device)
    found = {name: BENCHES[name](options.device, options.rounds, options.small) for name in options.what}
    facts = {"hardware": hardware, "commit": git_commit(), "dirty": git_dirty(), "packages": package_versions(), "time": utc_now()}
    facts |= {"rounds": options.rounds, "threads": torch.get_num_threads()}
    for name, rows in found.items():
        stem = f"{name}-{re.sub(r'[^a-z0-9]+', '-', hardware.lower()).strip('-')}"
        write_atomic(RESULTS / f"{stem}.json", json.dumps({**facts, "rows": rows}, indent=1) + "\n")
        table = pd.DataFrame(rows).dropna(axis=1, how="all").round(3).astype(object)
        text = "| " + " | ".join(table.columns) + " |\n|" + "---|" * len(table.columns) + "\n"
        text += "\n".join("| " + " | ".join("" if pd.isna(cell) else str(cell) for cell in row) + " |" for row in table.to_numpy()) + "\n"
        write_atomic(RESULTS / f"{stem}.md", f"{hardware} · {facts['time']} · commit {facts['commit']}\n\n{text}")
        print(f"\n{name} ({hardware})\n{text}\n-> {RESULTS / stem}.json")


if __name__ == "__main__":
    main()
