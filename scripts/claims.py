"""`make claims`: compute a verdict on every claim of the paper from results/records and results/bench.

python -m scripts.claims                                  prints them, writes claims.md and claims.json
python -m scripts.claims arms e-matters --scale reduced   commands of arms that take finished runs' ranks
"""

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from cuttlefish.errors import CuttlefishError
from cuttlefish.evidence.admission import why_not_evidence
from cuttlefish.evidence.benches import load_benches
from cuttlefish.evidence.records import Evidence, load_evidence
from cuttlefish.evidence.selection import at_scale, by_seed, select
from cuttlefish.planning.spec import read_scales
from cuttlefish.record.atomic import write_atomic
from cuttlefish.report.claims.acceptance import fixed_by
from cuttlefish.report.claims.entry import load_claims
from cuttlefish.report.claims.judge import judge
from cuttlefish.report.claims.text import on_screen, to_json, to_markdown
from cuttlefish.report.paper import CLAIMS, PAPER, TABLES
from scripts.command import new_parser, reporting_errors

RESULTS = Path(__file__).resolve().parent.parent / "results"


@reporting_errors
def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_intermixed_args(arguments)
    return _arms(options) if options.action == "arms" else _judge(options)


def _judge(options: argparse.Namespace) -> int:
    claims = options.paper / CLAIMS
    collection = load_evidence(options.results / "records")
    benches, scales = load_benches(options.results / "bench"), read_scales(options.paper / TABLES)
    verdicts = judge(collection, benches, load_claims(claims), scales)
    fixed = fixed_by(claims)
    write_atomic(options.results / "claims.md", to_markdown(verdicts, fixed))
    write_atomic(options.results / "claims.json", to_json(verdicts, fixed))
    Console(width=max(Console().width, 130)).print(on_screen(verdicts))
    for left in collection.left_out:
        print(f"left out: {left.path}: {left.reason}")
    for run in collection.finished:
        if reason := why_not_evidence(run.record):
            print(f"counts for no claim: {run.path}: {reason}")
    print(f"accepted ranges fixed by {fixed or 'an unknown commit'} -> {options.results / 'claims.md'}")
    return 0


def _arms(options: argparse.Namespace) -> int:
    """Print the right-hand arms of a paired rule, with the ranks of each finished left-hand run."""
    claims = {entry["id"]: entry for entry in load_claims(options.paper / CLAIMS)}
    if options.claim not in claims:
        raise CuttlefishError(f"There is no claim {options.claim}; claims.yaml has {', '.join(claims)}.")
    finished = load_evidence(options.results / "records").finished
    runs = [run for run in finished if not why_not_evidence(run.record)]
    base, rules = (claims[options.claim].get("arms") or {}).get(options.scale), _rules(claims[options.claim])
    if not base or not rules:
        raise CuttlefishError(
            f"{options.claim} has no arm at {options.scale} scale that takes its ranks from a finished run."
        )
    commands = [command for rule in rules for command in _commands(base, rule, options.scale, runs)]
    if not commands:
        raise CuttlefishError(
            f"No finished run yet whose ranks the arms of {options.claim} take: first run {base} seed=0 and "
            "import its record."
        )
    print("\n".join(commands))
    return 0


def _rules(claim: dict[str, Any]) -> list[dict[str, Any]]:
    rules = claim["rule"] if isinstance(claim["rule"], list) else [claim["rule"]]
    return [rule for rule in rules if "ranks" in rule.get("same", ())]


def _commands(base: str, rule: dict[str, Any], scale: str, runs: list[Evidence]) -> Iterator[str]:
    """Return the commands of one rule's right-hand arms.

    base: The command of the left-hand runs without the seed, which defines their setting.
    """
    for run in by_seed(select(runs, rule["left"], scale)).values():
        own = [
            f"{path.removeprefix('config.')}={str(value).lower()}"
            for path, value in at_scale(rule["right"], scale).items()
            if path.startswith("config.") and rule["left"].get(path) != value
        ]
        ranks = ",".join(f"{layer}:{rank}" for layer, rank in run.record.ranks.items())
        yield shlex.join([*shlex.split(base), f"seed={run.record.seed}", *own, f"method.ranks={{{ranks}}}"])


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("claims", __doc__)
    parser.add_argument("action", nargs="?", choices=["judge", "arms"], default="judge")
    parser.add_argument("claim", nargs="?", help="of arms: whose")
    parser.add_argument("--scale", choices=["paper", "reduced"], default="reduced", help="of arms")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder with records/ and bench/")
    paper = "the folder with claims.yaml and tables.yaml"
    parser.add_argument("--paper", type=Path, default=PAPER, help=paper)
    return parser


if __name__ == "__main__":
    sys.exit(main())
