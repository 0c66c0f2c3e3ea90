"""Execute the missing runs of tables and figures, and collate the tables from records.

    python -m scripts.tables                                   every table at reduced scale, seed 0
    python -m scripts.tables table1 --scale paper --seeds 0,1,2 --dry-run
    python -m scripts.tables --collate-only                    never trains
    python -m scripts.tables table1 row=cuttlefish,lc model=vgg19     only runs of these rows, models and data
    python -m scripts.tables figure2 trainer.precision=bf16    further words go to each run

Tables are written to results/tables/<scale>/; finished runs are imported into results/records/. --dry-run
only lists each run with its state and estimated cost. Missing runs are executed in the order of value given
in tables.yaml; with --minutes only those that fit into the time left, and a run still going at the end is
asked to save its state. Exit codes are those of run.py.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cuttlefish.evidence.benches import load_benches
from cuttlefish.evidence.records import Collection, load_evidence
from cuttlefish.planning.cost import Estimates
from cuttlefish.planning.execute import by_front_door, execute, exit_code_of, in_order_of_value
from cuttlefish.planning.listing import run_list
from cuttlefish.planning.planned_run import PlannedRun
from cuttlefish.planning.runs import pick, planned_runs
from cuttlefish.planning.spec import Spec, read_spec
from cuttlefish.planning.state import Known, State, folder_state, state_words
from cuttlefish.planning.time_limit import TimeLimit
from cuttlefish.report.claims.entry import load_claims
from cuttlefish.report.paper import CLAIMS, PAPER, TABLES
from cuttlefish.report.tables.build import all_tables
from cuttlefish.report.tables.write import left_out_text, write_tables
from scripts.command import new_parser, reporting_errors
from scripts.records import SMOKE, import_run, records_of

ROOT = Path(__file__).resolve().parent.parent
PICKED_BY = ("row", "model", "data")


@reporting_errors
def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_intermixed_args(arguments)
    words = [word for word in options.names if "=" in word]
    picks = [word for word in words if word.partition("=")[0] in PICKED_BY]
    spec = read_spec(options.paper / TABLES).with_words(
        options.scale, [word for word in words if word not in picks]
    )
    names = [name for name in options.names if "=" not in name] or spec.table_names
    work = Work(spec, names, options)
    runs = pick(work.planned(options.seeds), dict(word.split("=", 1) for word in picks))
    if options.dry_run:
        work.show(runs)
        return 0
    code = 0 if options.collate_only else work.train(runs)
    work.collate()
    return code


class Work:
    """The work of one command on the tables and figures it names."""

    def __init__(self, spec: Spec, names: list[str], options: argparse.Namespace):
        self.spec, self.names, self.scale = spec, names, options.scale
        self.options, self.root, self.results = options, options.root, options.root / "results"
        self.records = records_of(self.scale, self.results)

    def planned(self, seeds: Sequence[int]) -> list[PlannedRun]:
        return planned_runs(self.spec, self.names, self.scale, seeds, self.root)

    def show(self, runs: list[PlannedRun]) -> None:
        """Print the runs with their states and costs."""
        collection = load_evidence(self.records)
        known = Known.of(collection.runs, self.root)
        print("\n".join(run_list(runs, known, self._estimates(collection))))

    def train(self, runs: list[PlannedRun]) -> int:
        """Execute missing runs in order of value and import finished ones; return the worst exit code."""
        collection, codes = load_evidence(self.records), []
        limit = TimeLimit(self.options.minutes, self._estimates(collection), self.root)
        ordered = in_order_of_value(runs, self.spec.scale(self.scale).order)
        known, start = Known.of(collection.runs, self.root), by_front_door(self.root)
        for run, state, code in execute(ordered, known, start, limit):
            codes.append(code)
            folder = self.root / run.folder
            if self.scale != SMOKE and folder_state(folder, run.run_key) is State.FINISHED:
                print(f"imported {import_run(folder, self.records)}")
            elif state in (State.WAITS, State.DATA_ABSENT, State.NO_TIME):
                where = "; CUTTLEFISH_DATA names its folder" if state is State.DATA_ABSENT else ""
                told = f"{run.title}, {run.model} on {run.data}, seed {run.seed}: {state_words(run, state)}"
                print(f"not run: {told}{where}", file=sys.stderr)
        return exit_code_of(codes)

    def collate(self) -> None:
        """Write the tables of all seeds that were run, and the list of records left out."""
        collection = load_evidence(self.records)
        shown = replace(self.spec, tables={name: self.spec.table(name) for name in self.names})
        claims = {claim["id"]: claim for claim in load_claims(self.options.paper / CLAIMS)}
        planned, benches = self.planned(self._seeds(collection)), load_benches(self.results / "bench")
        tables, refused = all_tables(shown, planned, collection, claims, self.scale, benches)
        left_out = [*collection.left_out, *refused]
        if tables:
            for path in write_tables(self.results / "tables" / self.scale, tables, left_out, self.root):
                print(path.relative_to(self.root))
        if left_out:
            print(left_out_text(left_out, self.root), file=sys.stderr)

    def _estimates(self, collection: Collection) -> Estimates:
        seeds = self._seeds(collection)
        tables = [name for name, table in self.spec.tables.items() if table.rows]
        baselines = planned_runs(self.spec, tables, self.scale, seeds, self.root, only_baselines=True)
        return Estimates(self.planned(seeds), baselines, collection, load_benches(self.results / "bench"))

    def _seeds(self, collection: Collection) -> list[int]:
        """Return every seed that was run or requested, since a table shows all of them."""
        return sorted({*self.options.seeds, *(run.record.seed for run in collection.runs)})


def _seeds(text: str) -> list[int]:
    try:
        return [int(seed) for seed in text.replace(",", " ").split()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a list of seeds, as in 0,1,2") from None


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("tables", __doc__)
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
