"""`make report`: write results/report/index.html and a page per run from records alone.

python -m scripts.report                    from results/ into results/report/
python -m scripts.report --out FOLDER       elsewhere
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cuttlefish.evidence.admission import not_admitted
from cuttlefish.evidence.benches import Bench, load_benches
from cuttlefish.evidence.records import Collection, LeftOut, load_evidence
from cuttlefish.planning.runs import planned_runs
from cuttlefish.planning.spec import Spec, read_spec
from cuttlefish.report.claims.acceptance import fixed_by, words_of
from cuttlefish.report.claims.entry import load_claims
from cuttlefish.report.claims.judge import judge
from cuttlefish.report.page.figure_list import listed_figures
from cuttlefish.report.page.site import Report, write_site
from cuttlefish.report.paper import CLAIMS, PAPER, TABLES
from cuttlefish.report.tables.build import all_tables
from cuttlefish.report.tables.paper_values import Claims
from cuttlefish.report.tables.table import Table
from scripts.command import new_parser, reporting_errors
from scripts.records import SMOKE

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"


@reporting_errors
def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    print(write_site(_report(options.results, options.paper), options.out or options.results / "report"))
    return 0


def _report(results: Path, paper: Path = PAPER) -> Report:
    records, path, spec = results / "records", paper / CLAIMS, read_spec(paper / TABLES)
    collection, claims, fixed = load_evidence(records), load_claims(path), fixed_by(path)
    benches = load_benches(results / "bench")
    tables, refused = _tables(spec, collection, benches, {claim["id"]: claim for claim in claims})
    left_out = [*collection.left_out, *refused, *not_admitted(collection.runs)]
    return Report(
        records=records,
        collection=Collection(collection.runs, left_out),
        tables=tables,
        verdicts=judge(collection, benches, claims, spec.scales),
        figures=[figure for figure in listed_figures(results / "figures") if figure.scale != SMOKE],
        fixed=words_of(fixed) if fixed else "",
    )


def _tables(
    spec: Spec, collection: Collection, benches: Sequence[Bench], claims: Claims
) -> tuple[list[Table], list[LeftOut]]:
    """Return every table at every scale with a finished run, and unused records with reasons."""
    tables, refused = [], {}
    for scale in spec.scales:
        seeds = sorted({run.record.seed for run in collection.finished if run.record.scale == scale})
        if seeds:
            planned = planned_runs(spec, spec.table_names, scale, seeds, ROOT)
            found, left_out = all_tables(spec, planned, collection, claims, scale, benches)
            tables += found
            refused |= {item.path: item for item in left_out}
    return tables, list(refused.values())


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("report", __doc__)
    results, paper = "records/, bench/ and figures/", "claims.yaml and tables.yaml"
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"the folder with {results}")
    parser.add_argument("--paper", type=Path, default=PAPER, help=f"the folder with {paper}")
    parser.add_argument("--out", type=Path, help="default: <results>/report")
    return parser


if __name__ == "__main__":
    sys.exit(main())
