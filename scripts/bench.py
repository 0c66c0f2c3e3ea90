"""`make bench`: measure speed as ratios within one run, and write one file per hardware to results/bench.

Arms take turns, round after round, so that a slowdown of the machine affects all of them; medians and spreads
are shown. Run nothing else at the same time.

    python -m scripts.bench [ranks | steps | compile | compile-vgg19 | methods | overhead | checkpoints |
                            processes | imagenet | glue | library | models ...]
                            [--rounds 5] [--device cpu|cuda] [--small]
"""

import json
import sys
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from cuttlefish.config.schema import TrainerConfig
from cuttlefish.engine.device import choose_device, set_up
from cuttlefish.record.atomic import write_atomic
from cuttlefish.record.provenance import utc_now
from scripts.benches.decoding import bench_imagenet
from scripts.benches.glue import bench_glue
from scripts.benches.library import bench_library
from scripts.benches.methods import bench_methods
from scripts.benches.models import bench_models
from scripts.benches.parts import bench_checkpoints, bench_overhead
from scripts.benches.processes import bench_processes
from scripts.benches.ranks import bench_ranks
from scripts.benches.steps import bench_compile, bench_steps
from scripts.benches.turns import Rows
from scripts.command import new_parser, reporting_errors
from scripts.origin import RESULTS, file_of, origin

BENCHES = {
    "ranks": bench_ranks,
    "steps": bench_steps,
    "compile": partial(bench_compile, model="resnet18"),
    "compile-vgg19": partial(bench_compile, model="vgg19"),
    "methods": bench_methods,
    "overhead": bench_overhead,
    "checkpoints": bench_checkpoints,
    "processes": bench_processes,
    "imagenet": bench_imagenet,
    "glue": bench_glue,
    "library": bench_library,
    "models": bench_models,
}


def write(name: str, rows: Rows, facts: dict[str, Any], out: Path = RESULTS) -> Path:
    """Write <out>/<name>-<hardware>.json and .md after each bench, because a later one may be interrupted."""
    path, text = file_of(name, facts["hardware"], out), table_of_rows(rows)
    write_atomic(path, json.dumps({**facts, "rows": rows}, indent=1) + "\n")
    code = f"commit {facts['commit']}{' with uncommitted changes' if facts.get('dirty') else ''}"
    write_atomic(path.with_suffix(".md"), f"{facts['hardware']} · {facts['time']} · {code}\n\n{text}")
    print(f"\n{name} ({facts['hardware']})\n{text}\n-> {path}", flush=True)
    return path


def table_of_rows(rows: Rows) -> str:
    """Return Markdown, without the single rounds and empty columns."""
    columns = dict.fromkeys(
        name for row in rows for name, value in row.items() if name != "rounds_s" and value is not None
    )
    lines = [list(columns), *([_cell(row.get(name)) for name in columns] for row in rows)]
    head, *body = (f"| {' | '.join(line)} |\n" for line in lines)
    return "".join([head, "|" + "---|" * len(columns) + "\n", *body])


def _cell(value: Any) -> str:
    return "" if value is None else str(round(value, 3) if isinstance(value, float) else value)


@reporting_errors
def main(arguments: list[str] | None = None) -> int:
    parser = new_parser("bench", __doc__)
    names = {"choices": [*BENCHES, []], "metavar": "what", "help": " | ".join(BENCHES)}
    parser.add_argument("what", nargs="*", default=list(BENCHES), **names)
    parser.add_argument("--rounds", type=int, default=5)
    here = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=here)
    small = "ResNet-18 only, and narrow where a bench trains"
    parser.add_argument("--small", action="store_true", help=small)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    trainer = TrainerConfig(device=options.device)
    device = choose_device(trainer)
    set_up(trainer, device, 0)
    facts = origin(device) | {"rounds": options.rounds, "small": options.small}
    for name in options.what:
        began = perf_counter()
        rows = BENCHES[name](options.device, options.rounds, options.small)
        write(name, rows, facts | {"time": utc_now(), "seconds": perf_counter() - began}, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
