"""Made-up evidence in any amount: plausible records with the files beside them."""

import json
import math
from pathlib import Path
from typing import Any

from cuttlefish.config.schema import Config
from cuttlefish.config.validate import to_dict
from cuttlefish.record.fields import Record
from cuttlefish.record.folder import RANK_COLUMNS
from cuttlefish.record.record import new_record
from tests.helpers.finished import FINISHED, SWITCHED

MODELS, DATA = ("resnet18", "vgg19"), ("cifar10", "cifar100", "svhn")
METHODS = ("full_rank", "cuttlefish", "pufferfish", "si_fd", "lc", "imp", "grasp", "eb", "xnor")
EPOCHS, LAYERS = 30, 12


def made_up_record(number: int = 0, status: str = "finished", **changes: Any) -> Record:
    """Record `number` of a sweep over models, data sets, methods and seeds."""
    method, rest = METHODS[number % 9], number // 9
    model, data, seed = MODELS[rest % 2], DATA[rest // 2 % 3], rest // 6
    low, params = method != "full_rank", 701466
    switch = SWITCHED | {"switch_epoch": 13, "ranks": {f"layer{i}": 4 + i for i in range(LAYERS)}}
    own = dict(
        run_key=f"{number:012x}", model=model, data=data, method=method, seed=seed,
        experiment_name=f"reduced/{model}-{data}-{method}",
        config=to_dict(Config()) | {"seed": seed, "method": {"name": method}},
        accuracy_final=70 + number % 1000 / 100, accuracy_best=71 + number % 1000 / 100,
        params_full=params, params_total=params // 3 if low else params,
        params_trainable=params // 3, params_nonzero=params // 3, params_stored_bits=32 * params // 3,
        macs_full=35046656, macs_final=20951296, compute_seconds=2300.0 + number, wall_seconds=2900.0 + number,
        seconds={"train": 2200.0, "evaluate": 600.0}, peak_memory_bytes=2**30,
        device="a CPU, 1 core", threads=1, git_commit="5cd7186", git_dirty=False, platform="Linux", python="3.11",
    )  # fmt: skip
    return new_record(status, **(FINISHED | (switch if low else {}) | own | changes))


def write_run(folder: Path, record: Record | dict[str, Any]) -> Path:
    """The record, its epoch rows and its rank rows, written without the care of a real run."""
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(vars(record) if isinstance(record, Record) else record))
    epochs = [f"{json.dumps(_epoch(epoch))}\n" for epoch in range(1, EPOCHS + 1)]
    (folder / "epochs.jsonl").write_text("".join(epochs))
    ranks = [
        f"{epoch},layer{layer},{_rank(epoch, layer)},{layer + 9},64"
        for epoch in range(14)
        for layer in range(LAYERS)
    ]
    (folder / "ranks.csv").write_text("".join(f"{line}\n" for line in [",".join(RANK_COLUMNS[:-1]), *ranks]))
    return folder


def write_many(root: Path, count: int) -> None:
    for number in range(count):
        record = made_up_record(number)
        write_run(root / record.experiment_name / f"seed{record.seed}-{record.run_key}", record)


def _epoch(epoch: int) -> dict[str, Any]:
    loss = 0.4 + 2 / epoch
    train = {"train_loss": loss, "train_accuracy": 90 - 60 / epoch}
    test = {"test_loss": loss + 0.2, "test_accuracy": 80 - 50 / epoch}
    size = {"params_total": 701466, "seconds": {"train": 28.5}}
    return {"epoch": epoch, "phase": "train", "lr": 0.1, **train, **test, **size}


def _rank(epoch: int, layer: int) -> float:
    return 20 - layer + 8 * math.exp(-epoch / 3)
