"""Benches measured within a slice: ceilings, data path, step times.

    python -m scripts.slice.measures ceilings | data | steps | compile | models --device cuda --out OUT

Step times are written after each arm (OUT/arms) together with the bench so far, so a slice can be resumed;
those of `models` after each network and precision.
"""

import json
import re
import sys
from pathlib import Path
from statistics import median
from typing import Any

import torch

from cuttlefish.config.schema import TrainerConfig
from cuttlefish.engine.device import choose_device, set_up
from cuttlefish.record.atomic import write_atomic
from cuttlefish.record.provenance import utc_now
from cuttlefish.tasks.resident import ResidentImages
from scripts.bench import write
from scripts.benches.models import PRECISIONS, model_rows
from scripts.benches.step_arm import measure_here
from scripts.benches.steps import gathered, rows_of, step_arms
from scripts.benches.turns import SPEC, Rows, seconds_of
from scripts.command import new_parser
from scripts.origin import origin

ROUNDS = 3
COMPILED = [
    ("bf16", "dense", None), ("bf16", "rank 1/4", 0.25), ("bf16", "rank 0.23, odd", 0.23),
    ("fp32", "dense", None), ("fp32", "rank 1/4", 0.25), ("bf16", "rank 1/8", 0.125), ("tf32", "dense", None),
    ("tf32", "rank 1/4", 0.25), ("fp32", "rank 1/8", 0.125), ("tf32", "rank 1/8", 0.125),
]  # fmt: skip
"""In order of value: compiling takes half a minute per arm."""


def ceilings(device: str, toy: bool) -> Rows:
    """Measure the hardware's peak rates: matrix products, and a copy (bytes read and written)."""
    size, numbers = (256, 2**20) if toy else (8192, 2**30)
    rows = []
    for name in ("bf16", "tf32", "fp32"):
        dtype, tf32 = torch.bfloat16 if name == "bf16" else torch.float32, name == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = tf32
        left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        rates = [2 * size**3 / seconds_of(lambda a=left, b=right: a @ b, device) for _ in range(8)][3:]
        rows.append({"what": f"{name} matrix product", "size": size, "tera_per_s": median(rates) / 1e12})
    source = torch.zeros(numbers, device=device)
    target = torch.empty_like(source)
    rates = [8 * numbers / seconds_of(lambda: target.copy_(source), device) for _ in range(8)][3:]
    return [*rows, {"what": "copy", "size": 4 * numbers, "tera_per_s": median(rates) / 1e12}]


def data(device: str, toy: bool) -> Rows:
    """Measure images per second of CIFAR's augmented and normalised training batches, without a model."""
    count, batch = (500, 100) if toy else (50_000, 1024)
    pixels = torch.randint(256, (count, 32, 32, 3)).to(torch.uint8)
    labels = torch.zeros(count, dtype=torch.int64)
    images = ResidentImages(
        pixels, labels, mean=[0.5] * 3, std=[0.25] * 3, crop_padding=4, flip=True, device=device
    )

    def epoch(number: int) -> None:
        for _ in images.batches(batch, epoch=number, train=True):
            pass

    seconds = [seconds_of(lambda number=number: epoch(number), device) for number in range(ROUNDS + 1)][1:]
    rates = {"epoch_s": median(seconds), "images_per_s": count / median(seconds)}
    return [{"batch": batch, "images": count, **rates}]


def arms_of(what: str, device: str, toy: bool) -> Rows:
    """Return the arms of both networks; three narrow ones for a toy."""
    if toy:
        return [arm | {"width": 8, "batch": 8} for arm in step_arms("cpu", True)[1:4]]
    if what == "steps":
        arms = [arm | {"steps": 10} for arm in step_arms(device, False) if arm["width"] == 64]
        return sorted(arms, key=lambda arm: "plain" in arm or arm.get("extra_bn", False))  # these come last
    shared = {"device": device, "batch": 1024, "width": 64, "steps": 20, "compile": True}
    return [
        shared | {"model": model, "k": SPEC["k"][model], "precision": precision, "ratio": ratio, "arm": name}
        for precision, name, ratio in COMPILED
        for model in ("resnet18", "vgg19")
    ]


def step_times(what: str, device: str, toy: bool, out: Path, facts: dict[str, Any]) -> None:
    """Measure the arms that are not on disk yet; rewrite the bench after each."""
    arms, measured = arms_of(what, device, toy), []
    for arm in arms:
        name = f"{what}-{arm['model']}-{arm['precision']}-{arm['arm']}"
        kept = out / "arms" / f"{re.sub(r'[^a-z0-9]+', '-', name)}.json"
        if not kept.exists():
            write_atomic(kept, json.dumps(measure_here(arm, ROUNDS) | {"hardware": facts["hardware"]}) + "\n")
        measured.append(json.loads(kept.read_text(encoding="utf-8")))
        same = [one for one in measured if one["hardware"] == facts["hardware"]]
        if len(same) != len(measured):
            raise SystemExit(f"{kept.parent} has arms of another card: choose another folder")
        rows = []
        for model in dict.fromkeys(arm["model"] for arm in arms[: len(measured)]):
            pairs = [(a, m) for a, m in zip(arms, measured, strict=False) if a["model"] == model]
            rows += rows_of([a for a, _ in pairs], gathered([m for _, m in pairs]))
        write(what, rows, facts | {"time": utc_now()}, out / "bench")


def models(device: str, toy: bool, out: Path, facts: dict[str, Any]) -> None:
    """Measure the networks of Tables 2 to 4, first in bf16: cuDNN searches for minutes in fp32."""
    rows: Rows = []
    for precision in PRECISIONS:
        for name in list(SPEC["models"])[: 1 if toy else None]:
            rows += model_rows(name, precision, device, ROUNDS, toy)
            write("models", rows, facts | {"time": utc_now()}, out / "bench")


def main() -> int:
    parser = new_parser("slice.measures", __doc__)
    parser.add_argument("what", choices=["ceilings", "data", "steps", "compile", "models"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    trainer, toy = TrainerConfig(device=options.device), options.device == "cpu"
    device = choose_device(trainer)
    set_up(trainer, device, 0)
    facts = origin(device) | {"rounds": ROUNDS, "small": toy}
    if options.what in ("steps", "compile"):
        step_times(options.what, options.device, toy, options.out, facts)
    elif options.what == "models":
        models(options.device, toy, options.out, facts)
    else:
        rows = {"ceilings": ceilings, "data": data}[options.what](options.device, toy)
        write(options.what, rows, facts | {"time": utc_now()}, options.out / "bench")
    return 0


if __name__ == "__main__":
    sys.exit(main())
