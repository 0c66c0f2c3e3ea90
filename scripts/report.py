"""`make report`: results/report/index.html and a page a run, from records alone. Self-contained: opens from the disk, asks no network.

    python -m scripts.report                    from results/ into results/report/
    python -m scripts.report --out /tmp/site    elsewhere
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cuttlefish.errors import EXIT_BAD_INPUT, CuttlefishError
from cuttlefish.report.acceptance import fixed_by
from cuttlefish.report.benches import load_benches
from cuttlefish.report.claims import judge, load_claims
from cuttlefish.report.evidence import load_evidence
from cuttlefish.report.page.site import Report, write_site

RESULTS = Path(__file__).resolve().parent.parent / "results"


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        index = write_site(_report(options.results), options.out or options.results / "report")
    except (CuttlefishError, OSError) as error:
        print(f"cuttlefish: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    print(index)
    return 0


def _report(results: Path) -> Report:
    records, claims = results / "records", results / "claims.yaml"
    collection = load_evidence(records)
    fixed = fixed_by(claims)
    return Report(
        records=records,
        collection=collection,
        verdicts=judge(collection, load_benches(results / "bench"), load_claims(claims)),
        fixed=f"What is accepted was last changed in commit {fixed}." if fixed else "",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder with records/, bench/, claims.yaml and figures/")
    parser.add_argument("--out", type=Path, help="default: <results>/report")
    return parser


if __name__ == "__main__":
    sys.exit(main())
