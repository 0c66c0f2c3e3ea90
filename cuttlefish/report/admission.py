"""Whether a run labelled with a scale was run as that scale is: a label alone makes no run count for a claim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuttlefish.report.selection import value_of

WIDTH, IMAGES, BATCH, EPOCHS = "config.model.width", "config.data.images_per_class", "config.recipe.batch_size", "config.recipe.epochs"
SCALES = {
    "paper": {WIDTH: [None, 64], IMAGES: [None], BATCH: [1024]},
    "reduced": {WIDTH: [16], IMAGES: [1000], BATCH: [128], EPOCHS: [30]},
}
PAPER_EPOCHS = {"cifar10": [300], "cifar100": [300], "svhn": [200]}
OWN_BATCH = {"lc": 128, "imp": 128, "grasp": 128, "eb": 256}
"""Of methods whose authors' settings are meant for another batch than the paper's."""
CUT_SHORT = ("config.trainer.max_steps", "config.trainer.max_eval_batches", "config.trainer.overfit")


def objection(record: Mapping[str, Any]) -> str:
    """Why the run does not count for a claim; empty where it does, and for scales that no claim is about."""
    wanted = scale_of(record["scale"], record["data"], record["method"])
    found = {path: value_of(record, path) for path in (*wanted, *CUT_SHORT)}
    unlike = [f"{path.removeprefix('config.')}={found[path]}" for path, values in wanted.items() if found[path] not in values]
    cut = [f"{path.removeprefix('config.')}={found[path]}" for path in CUT_SHORT if wanted and found[path] not in (None, False)]
    return f"not what the {record['scale']} scale is: {', '.join([*unlike, *cut])}" if unlike or cut else ""


def scale_of(scale: str, data: str, method: str) -> dict[str, list[Any]]:
    """What a run of the scale may have, by path in its record. Data without a recipe of the paper admits no length at all."""
    wanted = dict(SCALES.get(scale, {}))
    if scale == "paper":
        wanted[EPOCHS] = PAPER_EPOCHS.get(data, [])
        wanted[BATCH] = [*wanted[BATCH], *([OWN_BATCH[method]] if method in OWN_BATCH else [])]
    return wanted
