"""A made-up but plausible run: ResNet-18 on CIFAR-10 for 12 epochs, 17 convolutions, switch after epoch 5."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

from cuttlefish.loggers.base import RunInfo
from cuttlefish.loggers.jsonl import JsonLines
from cuttlefish.record.atomic import write_atomic
from cuttlefish.record.fields import Record
from cuttlefish.record.folder import RANK_COLUMNS
from cuttlefish.record.record import new_record, write_record
from tests.helpers.finished import FINISHED, SWITCHED

E, EPOCHS, KEY = 5, 12, "3f2a9c81d0b7"
STACKS = {
    f"{32 >> s}×{32 >> s}": [f"layer{s + 1}.{b}.conv{c}" for b in (0, 1) for c in (1, 2)] for s in range(4)
}
CONFIG = {
    "model": {"name": "resnet18", "width": 16},
    "data": {"name": "cifar10", "root": "/home/someone/data"},
    "method": {"name": "cuttlefish", "preset": "scale_free", "api_key": "hunter2"},
    "recipe": {"name": "reduced", "epochs": EPOCHS, "batch_size": 128},
    "trainer": {"device": "cpu", "devices": 1, "precision": "fp32"},
    "seed": 3,
    "scale": "reduced",
}


def rank_rows(epoch: int) -> list[dict]:
    rows = []
    for index, layer in enumerate(layer for layers in list(STACKS.values())[1:] for layer in layers):
        full = 128 * 2 ** (index // 4)
        ratio = 0.6 - 0.03 * index + (0.4 + 0.03 * index) * math.exp(-epoch)
        ranks = ratio * full / 1.778, math.ceil(ratio * full), full
        rows.append(dict(zip(RANK_COLUMNS, (epoch, layer, *ranks), strict=False)))
    return rows


def ranks_of(layer: str, epochs: Iterable[int]) -> dict[int, float]:
    rows = [row for epoch in epochs for row in rank_rows(epoch)]
    return {row["epoch"]: row["stable_rank"] for row in rows if row["layer"] == layer}


def epoch_row(epoch: int) -> dict:
    return {
        "epoch": epoch,
        "phase": "train",
        "schedule_epoch": epoch - 1,
        "lr": 0.1,
        "train_loss": 2.3 / epoch,
        "train_accuracy": 90 - 70 / epoch,
        "test_loss": 2.5 / epoch,
        "test_accuracy": 80 - 60 / epoch,
        "params_total": 11173962 if epoch <= E else 3389514,
        "compute_seconds": 30.0 * epoch,
        "wall_seconds": 33.0 * epoch,
        "seconds": {"train": 28.5, "evaluate": 1.5},
    }


def profile() -> dict:
    stacks = []
    for index, (name, layers) in enumerate(STACKS.items()):
        full, low = 0.020 / (index + 1), 0.018 / (index + 1) ** 1.7
        times = {"full_forward": full, "low_forward": low}
        times |= {"speedup": full / low, "backward_speedup": 0.9 * full / low}
        told = {"intensity": 576.0 * 2**index, "factorize": index > 0}
        stacks.append({"name": name, "layers": layers, **times, **told})
    chosen = [layer for stack in stacks[1:] for layer in stack["layers"]]
    return {"ratio": 0.25, "threshold": 1.5, "source": "timed", "k": 5, "layers": chosen, "stacks": stacks}


def record(status: str = "finished", **changes) -> Record:
    own = dict(
        run_key=KEY, preset="scale_free", seed=3, epochs=EPOCHS, epochs_trained=EPOCHS,
        accuracy_final=78.93, accuracy_best=79.21, loss_final=0.71,
        params_full=11173962, params_total=3389514, params_trainable=3389514, params_nonzero=3389514,
        params_stored_bits=32 * 3389514, macs_full=555422720, macs_final=303422720,
        switch_epoch=E, ranks={row["layer"]: row["scaled_rank"] for row in rank_rows(E)},
        compute_seconds=812.4, wall_seconds=901.2, seconds={"train": 742.0, "evaluate": 60.2, "ranks": 1.3},
        peak_memory_bytes=2**30,
    )  # fmt: skip
    return new_record(status, **(FINISHED | SWITCHED | own | changes))


def full_rank_record(**changes) -> Record:
    none = dict(ranks=None, switch_epoch=None, switch_reason=None, k=None, preset=None)
    size = {"params_total": 11173962, "params_nonzero": 11173962, "macs_final": 555422720}
    own = {"method": "full_rank", "accuracy_final": 79.43, "compute_seconds": 1031.7}
    return record(**(own | size | none | changes))


def run_info(folder: Path, resumed_from: int = 0) -> RunInfo:
    return RunInfo(folder, CONFIG, KEY, resumed_from)


def write_run(folder: Path) -> Record:
    logger = JsonLines()
    logger.start(run_info(folder))
    write_atomic(folder / "profile.json", json.dumps(profile()))
    for epoch in range(EPOCHS):
        if epoch <= E:
            logger.ranks(rank_rows(epoch))
        logger.epoch(epoch_row(epoch + 1))
    write_record(folder, record())
    return record()
