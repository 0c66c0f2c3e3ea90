"""Check that a run was made as its scale requires; the label alone makes no run count for a claim."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cuttlefish.evidence.records import Evidence, LeftOut
from cuttlefish.record.fields import Record
from cuttlefish.record.record import value_of

KIND = "config.data.kind"
WIDTH, IMAGES, DRAWN, BATCH, EPOCHS = (
    "config.model.width",
    "config.data.images_per_class",
    "config.data.images_seed",
    "config.recipe.batch_size",
    "config.recipe.epochs",
)
SCALES = {
    "paper": {WIDTH: [None, 64], IMAGES: [None], DRAWN: [None], BATCH: [1024]},
    "reduced": {WIDTH: [16], IMAGES: [1000], DRAWN: [None], BATCH: [128], EPOCHS: [30]},
}
GLUE = {IMAGES: [None], DRAWN: [None], BATCH: [32], EPOCHS: [3, 5]}
"""Of GLUE's tasks at any scale: the public code's settings."""
PAPER_EPOCHS = {"cifar10": [300], "cifar100": [300], "svhn": [200], "imagenet": [300, 90]}
"""Of ImageNet those of DeiT and ResMLP, and of the convolutional networks."""
IMAGENET_BATCH = [1024, 256]
ARGUMENTS = "config.model.arguments"
REDUCED_NETWORKS = {
    "resnet50": {"channels": [16, 32, 64, 128], "output_stride": 8, "zero_init_last": False},
    "deit_tiny_patch16_224": {"img_size": 32, "patch_size": 4, "depth": 6},
    "resmlp": {"img_size": 32, "patch_size": 4, "num_blocks": 6, "embed_dim": 192},
}
"""Networks of timm at the reduced scale, whose size is in their arguments (conf/model/reduced)."""
TABLES = Path(__file__).resolve().parents[1] / "report" / "paper" / "tables.yaml"
NAMED = {
    KIND: lambda record: record.data,
    "config.data.name": lambda record: record.data,
    "config.method.name": lambda record: record.method,
    "config.model.name": lambda record: record.model,
    "config.seed": lambda record: record.seed,
}
"""What a run's config must contain: `data=cifar10 data.kind=cifar100` names one set and trains on another."""
CUT_SHORT = ("config.trainer.max_steps", "config.trainer.max_eval_batches", "config.trainer.overfit")


def why_not_evidence(record: Record) -> str:
    """Return why the run does not count for a claim; empty if it does or if no claim is about its scale."""
    is_glue = value_of(record, KIND) == "glue"
    wanted = (
        GLUE if is_glue and record.scale in SCALES else scale_of(record.scale, record.data, record.method)
    )
    if not wanted:
        return ""
    if record.scale == "reduced" and record.model in REDUCED_NETWORKS:
        wanted = wanted | {WIDTH: [None], ARGUMENTS: [REDUCED_NETWORKS[record.model]]}
    named = {path: [None, name(record)] for path, name in NAMED.items()}
    named[KIND].append("glue")  # whose tasks are chosen by name
    if misnamed := _unlike(record, named):
        return f"its config is not of what it is called: {misnamed}"
    unlike = _unlike(record, wanted | dict.fromkeys(CUT_SHORT, [None, False]))
    return f"not what the {record.scale} scale is: {unlike}" if unlike else ""


def _unlike(record: Record, wanted: Mapping[str, list[Any]]) -> str:
    found = {path: value_of(record, path) for path in wanted}
    return ", ".join(
        f"{path.removeprefix('config.')}={found[path]}" for path in wanted if found[path] not in wanted[path]
    )


def not_admitted(runs: Iterable[Evidence]) -> list[LeftOut]:
    """List the finished runs that count for no claim, each with the reason."""
    return [
        LeftOut(run.path, f"counts for no claim: {reason}")
        for run in runs
        if run.finished and (reason := why_not_evidence(run.record))
    ]


def scale_of(scale: str, data: str, method: str) -> dict[str, list[Any]]:
    """Return the values a run of the scale may have, by path in its record.

    Data without a recipe in the paper admits no number of epochs.
    """
    wanted = dict(SCALES.get(scale, {}))
    if scale == "paper":
        wanted[EPOCHS] = PAPER_EPOCHS.get(data, [])
        batches = IMAGENET_BATCH if data == "imagenet" else wanted[BATCH]
        wanted[BATCH] = [*batches, *own_batches().get(method, [])]
    return wanted


@cache
def own_batches() -> dict[str, list[int]]:
    """Return method -> batch sizes of rows of table 1 whose authors tuned for another than the paper's."""
    found: dict[str, list[int]] = defaultdict(list)
    for row in yaml.safe_load(TABLES.read_text(encoding="utf-8"))["tables"]["table1"]["rows"].values():
        words = dict(word.split("=", 1) for word in row["words"])
        if batch := words.get("recipe.batch_size"):
            found[words["method"]].append(int(batch))
    return dict(found)
