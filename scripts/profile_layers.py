"""Measure forward times of layer stacks and of single layers at several rank ratios (figures 4 and 6).

    python -m scripts.profile_layers stacks --model resnet18        full width, batch 128: figure 4, and K
    python -m scripts.profile_layers layers --model resnet50        batch 8: figure 6
    python -m scripts.profile_layers layers --model deit_small_patch16_224
    python -m scripts.profile_layers layers --model resnet50 --run KEY     also at the ratios that a run chose

Uses synthetic input and writes to results/bench/profile-…; run nothing else at the same time. On a GPU or
with --scale paper the batches are the paper's, 1024 (stacks) and 128 (layers); --scale reduced uses the CPU.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from cuttlefish.config.schema import ModelConfig, TrainerConfig
from cuttlefish.engine.device import autocast, choose_device, set_up
from cuttlefish.errors import CuttlefishError
from cuttlefish.evidence.benches import PROFILED_BATCH
from cuttlefish.lowrank.profiling.timing import Conditions
from cuttlefish.models import build_model
from cuttlefish.models.build import SUITE
from cuttlefish.record.atomic import write_atomic
from cuttlefish.record.provenance import device_name, utc_now
from scripts.command import new_parser, reporting_errors
from scripts.origin import RESULTS, file_of, origin
from scripts.profiles.chosen import check_names, chosen_by
from scripts.profiles.layers import profile_layers
from scripts.profiles.stacks import DECIDING_RATIO, THRESHOLD, profile_of_stacks

PROFILES = {"stacks": profile_of_stacks, "layers": profile_layers}
WIDTH = 64


@reporting_errors
def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.run is not None and options.what != "layers":
        raise CuttlefishError("--run gives single layers ratios of their own, and stacks have one each")
    print(what_is_there(options) if options.dry_run else measure(options))
    return 0


def what_is_there(options: argparse.Namespace) -> str:
    """Return the path of the output file, and whether it exists already."""
    path = _path(options, choose_device(_trainer(options)))
    return f"{path.name}: {'there' if path.exists() else 'missing'}"


def measure(options: argparse.Namespace) -> Path:
    """Profile the model `--repeats` times, write the file and return its path.

    With `--missing`, keep an existing file.
    """
    trainer = _trainer(options)
    device = choose_device(trainer)
    set_up(trainer, device, 0)
    path = _path(options, device)
    if options.missing and path.exists():
        return path
    suite = options.model in SUITE
    classes, side = (10, 32) if suite else (1000, 224)
    source, width = ("suite", options.width) if suite else ("timm", None)
    config = ModelConfig(name=options.model, source=source, width=width)
    batch_size = _batch(options, device)
    batch = torch.zeros(batch_size, 3, side, side, device=device)
    batch = batch.contiguous(memory_format=torch.channels_last)
    model = build_model(config, classes, (3, side, side)).to(device)
    precision = partial(autocast, trainer, device)
    conditions = Conditions(batch, DECIDING_RATIO, options.zeta, False, False, precision)
    profile, chosen = PROFILES[options.what], {}
    if options.run is not None:
        found = chosen_by(options.run)
        check_names(found, dict(model.named_modules()), options.model)
        profile, chosen = partial(profile_layers, chosen=found.ratios), {"chosen_by": found.facts()}
    began = perf_counter()
    rows, repeats = profile(model, conditions, options.ratios, options.repeats)
    facts = _facts(options, device, batch_size, config.width, perf_counter() - began) | chosen
    write_atomic(path, json.dumps({**facts, "repeats": repeats, "rows": rows}, indent=1) + "\n")
    return path


def _trainer(options: argparse.Namespace) -> TrainerConfig:
    """Return a trainer config; below paper scale it defaults to the CPU, since GPUs do not count there."""
    below = options.device == "auto" and options.scale in ("smoke", "reduced")
    return TrainerConfig(device="cpu" if below else options.device, precision=options.precision)


def _batch(options: argparse.Namespace, device: torch.device) -> int:
    scale = "paper" if options.scale == "paper" or device.type == "cuda" else "reduced"
    return options.batch or PROFILED_BATCH[scale][options.what]


def _path(options: argparse.Namespace, device: torch.device) -> Path:
    """Return the path: one file per setting and device."""
    narrow = [f"width{options.width}"] if options.model in SUITE and options.width != WIDTH else []
    setting = [options.what, options.model, *narrow, f"batch{_batch(options, device)}", options.precision]
    return file_of(f"profile-{'-'.join(setting)}", device_name(str(device)), options.out)


def _facts(
    options: argparse.Namespace, device: torch.device, batch: int, width: int | None, seconds: float
) -> dict[str, Any]:
    measured = {"precision": options.precision, "time": utc_now(), "seconds": seconds}
    measured |= {"profiled": options.what, "model": options.model, "width": width, "batch": batch}
    how = {"zeta": options.zeta, "ratios": options.ratios, "deciding_ratio": DECIDING_RATIO}
    return origin(device) | measured | how | {"threshold": THRESHOLD, "input": "random numbers"}


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("profile_layers", __doc__)
    parser.add_argument("what", choices=PROFILES)
    parser.add_argument("--model", required=True, help="of the suite (resnet18, vgg19) or of timm")
    parser.add_argument("--width", type=int, default=WIDTH, help="of the suite's models")
    scale = "paper: its batch, on whatever device; below it: the CPU"
    parser.add_argument("--scale", choices=["smoke", "reduced", "paper"], help=scale)
    parser.add_argument("--batch", type=int, help=f"default: {PROFILED_BATCH}")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.5, 0.25, 0.125, 0.0625])
    run = "run key, folder or record: also time each layer at the ratio of its full rank that this run chose"
    parser.add_argument("--run", help=run)
    parser.add_argument("--zeta", type=int, default=11, help="runs of each, the first dropped")
    parser.add_argument("--repeats", type=int, default=5, help="whole profiles, one after the other")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--device", choices=["cpu", "cuda", "auto"], default="auto")
    missing = "only if this device's profile is not there yet"
    parser.add_argument("--missing", action="store_true", help=missing)
    dry = "say which file it would be and whether it is there, and do nothing else"
    parser.add_argument("--dry-run", action="store_true", help=dry)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
