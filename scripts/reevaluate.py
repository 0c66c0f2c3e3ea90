"""`make reevaluate`: recompute every accuracy from the final weights, where they still exist.

    python -m scripts.reevaluate                       run folders under runs/
    python -m scripts.reevaluate /mnt/runs/table1      elsewhere
    python -m scripts.reevaluate data.root=/data       with the data in another folder

Prints for each run whether record and weights agree, and which committed records have no weights here. Exit
code 4 if any run differs.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuttlefish.display.format import scored
from cuttlefish.display.screen import plain_table
from cuttlefish.display.summary import as_text
from cuttlefish.errors import EXIT_BAD_INPUT, CuttlefishError
from cuttlefish.evidence.records import Evidence, load_evidence
from cuttlefish.record.fields import Record
from cuttlefish.record.folder import WEIGHTS
from cuttlefish.replay import EXIT_DIFFERS, replayed_config
from scripts.command import new_parser, reporting_errors

ROOT = Path(__file__).resolve().parent.parent
POINTS, LOSS_SHARE = 0.05, 1e-3
"""Another machine's arithmetic may change the class of a few images; another network changes far more."""
SAME, AGREES, DIFFERS, NOT_DONE = "the same", "agrees", "DIFFERS", "not evaluated"


@dataclass(frozen=True)
class Reevaluation:
    """A recomputed result. score: Headline metric; None if it could not be computed, for the reason `why`."""

    run: Evidence
    verdict: str
    score: float | None = None
    why: str = ""


@reporting_errors
def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    words = [word for word in options.paths if "=" in word]
    folders = [Path(path) for path in options.paths if "=" not in path] or [ROOT / "runs"]
    for folder in folders:
        if folder != ROOT / "runs" and not folder.exists():
            raise CuttlefishError(f"there is no folder {folder}")
    runs = [run for folder in folders for run in load_evidence(folder).finished]
    kept = [run for run in runs if (run.path.parent / WEIGHTS).exists()]
    outcomes = [evaluated(run, words) for run in kept]
    if outcomes:
        print(as_text(_table(outcomes)))
    print(f"{len(kept)} of {len(runs)} finished runs have their weights: {_counted(outcomes)}")
    for item in outcomes:
        if item.why:
            print(f"cuttlefish: {item.why}", file=sys.stderr)
    for run in without_weights(load_evidence(options.records).finished, kept):
        print(f"no weights here for {run.path.parent}")
    if any(item.verdict == DIFFERS for item in outcomes):
        return EXIT_DIFFERS
    return EXIT_BAD_INPUT if any(item.score is None for item in outcomes) else 0


def evaluated(run: Evidence, words: Sequence[str] = ()) -> Reevaluation:
    """Build one run's final network from its weights and evaluate it as the run did."""
    from cuttlefish.engine.reevaluate import reevaluate  # imports torch

    try:
        config = replayed_config(run.path, run.record, words)
        scores = reevaluate(config, run.record.run_key, run.path.parent)
    except CuttlefishError as error:
        return Reevaluation(run, NOT_DONE, why=str(error))
    except Exception as error:  # one invalid file among many must not stop the others
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        return Reevaluation(run, NOT_DONE, why=f"{run.path.parent}: {type(error).__name__}: {reason}")
    score = scores.metrics[run.record.headline]
    return Reevaluation(run, agreement(run.record, score, scores.loss), score)


def agreement(record: Record, score: float, loss: float) -> str:
    """Compare the recorded with the recomputed result."""
    if (record.score, record.loss_final) == (score, loss):
        return SAME
    is_near = abs(record.score - score) <= POINTS
    if is_near and abs(record.loss_final - loss) <= LOSS_SHARE * abs(record.loss_final):
        return AGREES
    return DIFFERS


def without_weights(evidence: Sequence[Evidence], kept: Sequence[Evidence]) -> Iterator[Evidence]:
    there = {(run.record.run_key, run.record.started) for run in kept}
    return (run for run in evidence if (run.record.run_key, run.record.started) not in there)


def _table(outcomes: Sequence[Reevaluation]) -> Any:
    table = plain_table(
        "From final weights", ("run", "left"), ("recorded", "right"), ("found again", "right"), ("", "left")
    )
    for item in outcomes:
        record = item.run.record
        name = f"{record.run_key} {record.model} {record.data} {record.method} seed {record.seed}"
        both = [scored(record.headline, score) for score in (record.score, item.score)]
        table.add_row(name, *both, item.verdict)
    return table


def _counted(outcomes: Sequence[Reevaluation]) -> str:
    words = [item.verdict for item in outcomes]
    kinds = [word for word in (SAME, AGREES, DIFFERS, NOT_DONE) if word in words]
    return ", ".join(f"{words.count(word)} {word}" for word in kinds) or "nothing to evaluate"


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("reevaluate", __doc__)
    parser.add_argument("paths", nargs="*", help="folders of runs, and words as in data.root=…")
    parser.add_argument(
        "--records", type=Path, default=ROOT / "results" / "records", help="committed records"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
