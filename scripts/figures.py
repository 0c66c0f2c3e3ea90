"""`make figures`: draw figures 1 to 6 from results/records and results/bench into results/figures/<scale>/.

    python -m scripts.figures                    every figure of every scale that has evidence
    python -m scripts.figures 2 3 --scale reduced
Figures are SVG and PNG. For a figure without evidence the missing runs are named instead. figures.json in the
same folder lists all figures, with captions and sources.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cuttlefish.display.format import counted
from cuttlefish.evidence.benches import load_benches
from cuttlefish.evidence.records import load_evidence
from cuttlefish.planning.runs import planned_runs
from cuttlefish.planning.spec import Spec, read_spec
from cuttlefish.record.atomic import write_atomic
from cuttlefish.record.problems import SCALES
from cuttlefish.report.figures.base import Sources, sources_of
from cuttlefish.report.figures.gallery import FIGURES, Drawn, draw_figure, is_of
from cuttlefish.report.page.figure_list import LIST
from cuttlefish.report.paper import PAPER, TABLES
from scripts.command import new_parser, reporting_errors
from scripts.records import records_of

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = range(1, 7)
PLANNED = ("table1", "figure1", "figure3", "figure5")


@reporting_errors
def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    for scale in options.scale or _scales(options.results):
        for drawn in draw_scale(scale, options.figures, options.results):
            missing = f"not drawn: {drawn.missing} -> {drawn.command}" if drawn.missing else ""
            print(f"{scale:<8}{drawn.name:<26}{missing or f'{drawn.caption} {_counted(drawn)}'}")
    return 0


def draw_scale(scale: str, numbers: list[int], results: Path) -> list[Drawn]:
    """Draw figures of one scale (all, if no numbers are given) and update the list beside them."""
    spec = read_spec(PAPER / TABLES)
    sources = _sources(scale, spec, results)
    folder = results / "figures" / scale
    wanted = [name for name in FIGURES if not numbers or int(name[6]) in numbers]
    drawn = [one for name in wanted for one in draw_figure(name, sources, folder)]
    _list(folder, drawn, wanted)
    return drawn


def _sources(scale: str, spec: Spec, results: Path) -> Sources:
    collection = load_evidence(records_of(scale, results))
    seeds = sorted({0, *(run.record.seed for run in collection.finished if run.record.scale == scale)})
    planned = planned_runs(spec, PLANNED, scale, seeds, ROOT) if scale in spec.scales else []
    benches, times = load_benches(results / "bench"), spec.scale(scale).times
    return sources_of(collection, benches, scale, planned, spec.names, times)


def _list(folder: Path, drawn: list[Drawn], names: list[str]) -> None:
    """Update figures.json: the new figures replace their old entries."""
    path = folder / LIST
    kept = [one for one in _listed(path) if not any(is_of(one["name"], name) for name in names)]
    rows = sorted([*kept, *map(asdict, drawn)], key=lambda one: one["name"])
    write_atomic(path, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


def _listed(path: Path) -> list[dict[str, Any]]:
    """Return the existing list; empty if damaged, since it is about to be rewritten."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [one for one in rows if isinstance(one["name"], str)]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _scales(results: Path) -> list[str]:
    """Return the scales with evidence, and the reduced one."""
    present = {run.record.scale for run in load_evidence(results / "records").finished} | {"reduced"}
    return [scale for scale in SCALES if scale in present and scale != "free"]


def _counted(drawn: Drawn) -> str:
    runs, benches = len(drawn.runs), len(drawn.benches)
    return f"({counted(runs, 'run') if runs else counted(benches, 'profile')})"


def _number(word: str) -> int:
    if word not in map(str, NUMBERS):
        raise argparse.ArgumentTypeError(f"{word} is not a figure: there are {NUMBERS[0]} to {NUMBERS[-1]}")
    return int(word)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("figures", __doc__)
    parser.add_argument("figures", nargs="*", type=_number, metavar="N", help="1 to 6; default: all")
    parser.add_argument("--scale", action="append", choices=SCALES, help="default: every scale with evidence")
    results = "the folder with records/, bench/ and figures/"
    parser.add_argument("--results", type=Path, default=ROOT / "results", help=results)
    return parser


if __name__ == "__main__":
    sys.exit(main())
