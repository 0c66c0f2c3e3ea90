"""Run what tables and figures are made of, as far as it is missing, and collate the tables from records.

    python -m scripts.tables                                   every table at reduced scale, seed 0
    python -m scripts.tables table1 --scale paper --seeds 0,1,2 --dry-run
    python -m scripts.tables --collate-only                    never trains
    python -m scripts.tables table1 row=cuttlefish,lc model=vgg19     only runs of these rows, models and data
    python -m scripts.tables figure2 trainer.precision=bf16    further words go to each run

Tables are written to results/tables/<scale>/; finished runs are imported into results/records/. --dry-run
lists each run, its state and what it may cost, and does nothing else. Missing runs are made in the order of
value that tables.yaml registers; with --minutes only those that fit into the time left, and one that is under
way at the end is asked to save its state. Exit codes are those of run.py.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cuttlefish.config.identity import NOT_IN_KEY
from cuttlefish.config.suggest import choose_from
from cuttlefish.errors import EXIT_BAD_INPUT, CuttlefishError
from cuttlefish.evidence.benches import load_benches
from cuttlefish.evidence.records import Collection, load_evidence
from cuttlefish.plan.cost import Estimates
from cuttlefish.plan.execute import by_front_door, execute, exit_code_of, in_order_of_value
from cuttlefish.plan.listing import run_list, waiting_lines
from cuttlefish.plan.planned_run import PlannedRun
from cuttlefish.plan.runs import planned_runs
from cuttlefish.plan.spec import Spec, read_spec
from cuttlefish.plan.state import Known, State, folder_state, state_words
from cuttlefish.plan.time_limit import TimeLimit
from cuttlefish.report.claims.entry import load_claims
from cuttlefish.report.paper import CLAIMS, PAPER, TABLES
from cuttlefish.report.tables.build import all_tables
from cuttlefish.report.tables.paper_values import Claims
from cuttlefish.report.tables.write import left_out_text, write_tables
from scripts.records import SMOKE, import_run, records_of

ROOT = Path(__file__).resolve().parent.parent
PICKED_BY = ("row", "model", "data")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_intermixed_args(arguments)
    try:
        return _run(options)
    except CuttlefishError as error:
        print(f"cuttlefish: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT


def _run(options: argparse.Namespace) -> int:
    words = [word for word in options.names if "=" in word]
    picks = dict(word.split("=", 1) for word in words if word.partition("=")[0] in PICKED_BY)
    spec = _with_words(
        tables_spec(options.root, options.paper),
        options.scale,
        [word for word in words if word.partition("=")[0] not in picks],
    )
    names = [name for name in options.names if "=" not in name] or [
        name for name, table in spec.tables.items() if not table.is_figure
    ]
    records = records_of(options.scale, options.root / "results")
    plan = _picked(planned_runs(spec, names, options.scale, options.seeds, options.root), picks)
    if options.dry_run:
        return _list(spec, names, plan, options, load_evidence(records))
    code = 0 if options.collate_only else _train(spec, names, plan, options, records)
    collection = load_evidence(records)
    planned = planned_runs(spec, names, options.scale, seeds_of(collection, options.seeds), options.root)
    _collate(spec, names, planned, collection, options)
    return code


def _picked(plan: list[PlannedRun], picks: dict[str, str]) -> list[PlannedRun]:
    """The runs of the plan with these rows, models and data."""
    for key, values in picks.items():
        there = list(dict.fromkeys(getattr(run, key) for run in plan))
        for value in values.split(","):
            if value not in there:
                raise CuttlefishError(f"{key}={value} is of no run here{choose_from(value, there)}")
        plan = [run for run in plan if getattr(run, key) in values.split(",")]
    return plan


def tables_spec(root: Path = ROOT, paper: Path = PAPER) -> Spec:
    return read_spec(paper / TABLES)


def read_claims(paper: Path = PAPER) -> Claims:
    """The claims of claims.yaml by id."""
    return {claim["id"]: claim for claim in load_claims(paper / CLAIMS)}


def seeds_of(collection: Collection, seeds: Sequence[int] = ()) -> list[int]:
    """Every seed that was run, and these: a table shows all there is."""
    return sorted({*seeds, *(run.record.seed for run in collection.runs)})


def _list(
    spec: Spec, names: list[str], plan: list[PlannedRun], options: argparse.Namespace, collection: Collection
) -> int:
    print(
        "\n".join(waiting_lines(spec.table(name) for name in names)),
        end="\n" if any(spec.table(name).waiting for name in names) else "",
    )
    estimates = _estimates(spec, names, options, collection)
    print("\n".join(run_list(plan, Known.of(collection.runs, options.root), estimates)))
    return 0


def _estimates(
    spec: Spec, names: list[str], options: argparse.Namespace, collection: Collection
) -> Estimates:
    seeds = seeds_of(collection, options.seeds)
    every = planned_runs(spec, names, options.scale, seeds, options.root)
    tables = [name for name, table in spec.tables.items() if table.rows]
    baselines = planned_runs(spec, tables, options.scale, seeds, options.root, only_baselines=True)
    return Estimates(every, baselines, collection, load_benches(options.root / "results" / "bench"))


def _train(
    spec: Spec, names: list[str], plan: list[PlannedRun], options: argparse.Namespace, records: Path
) -> int:
    collection, codes = load_evidence(records), []
    limit = TimeLimit(options.minutes, _estimates(spec, names, options, collection), options.root)
    runs = in_order_of_value(plan, spec.scale(options.scale).order)
    start = by_front_door(options.root)
    for run, state, code in execute(runs, Known.of(collection.runs, options.root), start, limit):
        codes.append(code)
        folder = options.root / run.folder
        if options.scale != SMOKE and folder_state(folder, run.run_key) is State.FINISHED:
            print(f"imported {import_run(folder, records)}")
        elif state in (State.WAITS, State.DATA_ABSENT, State.NO_TIME):
            where = "; CUTTLEFISH_DATA names its folder" if state is State.DATA_ABSENT else ""
            told = f"{run.title}, {run.model} on {run.data}, seed {run.seed}: {state_words(run, state)}"
            print(f"not run: {told}{where}", file=sys.stderr)
    return exit_code_of(codes)


def _collate(
    spec: Spec,
    names: list[str],
    planned: list[PlannedRun],
    collection: Collection,
    options: argparse.Namespace,
) -> None:
    shown = replace(spec, tables={name: spec.table(name) for name in names})
    benches = load_benches(options.root / "results" / "bench")
    tables, refused = all_tables(
        shown, planned, collection, read_claims(options.paper), options.scale, benches
    )
    left_out = [*collection.left_out, *refused]
    folder = options.root / "results" / "tables" / options.scale
    if tables:
        for path in write_tables(folder, tables, left_out, options.root):
            print(path.relative_to(options.root))
    if left_out:
        print(left_out_text(left_out, options.root), file=sys.stderr)


def _with_words(spec: Spec, scale: str, words: list[str]) -> Spec:
    """The spec with further words for each run, which must leave it the same run."""
    for word in words:
        key = word.partition("=")[0]
        if key not in NOT_IN_KEY and not key.startswith("logger."):
            raise CuttlefishError(
                f"{word} would make other runs than those of the tables; only "
                f"{', '.join(sorted(NOT_IN_KEY))} can be set"
            )
    found = spec.scale(scale)
    return replace(spec, scales={**spec.scales, scale: replace(found, words=[*found.words, *words])})


def _seeds(text: str) -> list[int]:
    try:
        return [int(seed) for seed in text.replace(",", " ").split()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a list of seeds, as in 0,1,2") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = "tables and figures (all tables if none is named), row=, model= and data=, and words for each run"
    parser.add_argument("names", nargs="*", help=names)
    parser.add_argument("--scale", default="reduced", help="smoke, reduced or paper")
    parser.add_argument("--seeds", type=_seeds, default=[0], help="as in 0,1,2")
    parser.add_argument(
        "--minutes", type=float, help="take no run that does not fit; the same command goes on"
    )
    parser.add_argument("--collate-only", action="store_true", help="train nothing")
    parser.add_argument("--dry-run", action="store_true", help="list the runs, and do nothing")
    parser.add_argument("--paper", type=Path, default=PAPER, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
