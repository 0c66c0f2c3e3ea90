"""Records made by hand for the report's tests: a narrow ResNet-18 that never trained."""

from hashlib import sha256
from pathlib import Path
from typing import Any

from cuttlefish.record.fields import Record
from cuttlefish.record.folder import RANK_COLUMNS, RANKS
from cuttlefish.record.record import new_record, write_record
from tests.helpers.finished import FINISHED, SWITCHED

CPU, GPU = FINISHED["device"], "a GPU"
LAYERS = {"conv1": 16, "layer2.0.conv1": 32, "layer3.0.conv1": 64, "layer4.0.conv1": 128, "fc": 10}


def record(method: str = "cuttlefish", seed: int = 0, **changes: Any) -> Record:
    """Return a finished run of its scale's setting; `setting` is laid over the config's sections."""
    paper = changes.get("scale") == "paper"
    epochs = changes.get("epochs", 300 if paper else 30)
    extra_bn = changes.get("model") == "vgg19"
    of_method = {
        "cuttlefish": {"name": method, "k": "paper", "extra_bn": extra_bn, "metric": "scaled"},
        "pufferfish": {"k": 3, "rank_ratio": 0.25},
    }
    knobs = of_method.get(method, {}) | changes.pop("knobs", {})
    recipe = {"epochs": epochs, "batch_size": 1024 if paper else 128}
    recipe |= {"schedule": {"milestones": [0.5, 0.7334]}}
    model, data = {"width": None if paper else 16}, {"images_per_class": None if paper else 1000}
    config = {"model": model, "data": data, "recipe": recipe, "method": knobs, "trainer": {}}
    for section, values in changes.pop("setting", {}).items():
        config[section] = config[section] | values
    identity = repr((method, seed, sorted(changes.items(), key=repr), config))
    own = dict(
        run_key=sha256(identity.encode()).hexdigest()[:12],
        method=method,
        seed=seed,
        epochs=epochs,
        epochs_trained=epochs,
        command=f"python run.py experiment=reduced/resnet18_{method} seed={seed} runs_root=.../x",
        config=config,
    )
    low_rank = SWITCHED if method == "cuttlefish" else {}
    return new_record("finished", **(FINISHED | low_rank | own | changes))


def put(
    root: Path, method: str = "cuttlefish", seed: int = 0, rows: list[dict[str, Any]] = (), **changes: Any
) -> Record:
    """Write a record (and rank rows) to a folder of its own below root/records; the record."""
    made = record(method, seed, **changes)
    folder = root / "records" / made.run_key
    folder.mkdir(parents=True)
    write_record(folder, made)
    if rows:
        lines = [",".join(str(row[name]) for name in RANK_COLUMNS[:-1]) for row in rows]
        (folder / RANKS).write_text("\n".join([",".join(RANK_COLUMNS[:-1]), *lines]) + "\n")
    return made


def rank_rows(ratio_at: Any, epochs: int = 30, layers: dict[str, int] = LAYERS) -> list[dict[str, Any]]:
    """ratio_at(layer, epoch): stable rank over its initial value, which is half of the full rank."""
    return [
        dict(zip(RANK_COLUMNS, (epoch, layer, ratio_at(layer, epoch) * full / 2, 1, full), strict=False))
        for epoch in range(epochs)
        for layer, full in layers.items()
    ]
