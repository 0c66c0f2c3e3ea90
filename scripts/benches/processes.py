"""Images per second of one process and of two in the trainer, on the same total number of cores."""

from statistics import median

import torch

from scripts.benches.little_run import epoch_seconds
from scripts.benches.turns import Rows

BATCH = 64
"""Batch size of each process."""


def bench_processes(device: str, rounds: int, small: bool) -> Rows:
    """Compare two processes with one on half of their cores, at twice the batch (weak scaling). Efficiency 1
    means no overhead. Uses gloo on a CPU, NCCL on two GPUs."""
    if device == "cuda" and torch.cuda.device_count() < 2:
        return [{"skipped": f"{torch.cuda.device_count()} GPU here"}]
    threads = max(1, torch.get_num_threads() // 2)
    width = 16 if small else 64
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(max(1, rounds // 2)):  # take turns, as all arms do
        for processes in times:
            times[processes] += _step_seconds(device, processes, threads, width)
    one, two = median(times[1]), median(times[2])
    row = {
        "model": "resnet18", "width": width, "batch": BATCH, "threads": threads, "one_s": one, "two_s": two,
    }  # fmt: skip
    return [
        row | {"efficiency": one / two, "images_per_s_one": BATCH / one, "images_per_s_two": 2 * BATCH / two}
    ]


def _step_seconds(device: str, processes: int, threads: int, width: int) -> list[float]:
    batch = BATCH * processes
    epochs = epoch_seconds(
        width=width,
        images=4 * batch,
        recipe={"epochs": 3, "batch_size": batch},
        trainer={"device": device, "devices": processes, "threads": threads, "checkpoint_epochs": 100},
    )
    return [parts["train"] / 4 for parts in epochs[1:]]
