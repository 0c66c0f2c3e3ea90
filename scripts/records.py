"""Import finished runs from runs/ into results/records, where git keeps them as evidence.

python -m scripts.records import runs/reduced/resnet18-cuttlefish/*
python -m scripts.records figures        each record's plots, drawn anew into results/figures
"""

import shutil
import sys
from hashlib import sha256
from pathlib import Path

from cuttlefish.errors import EXIT_BAD_INPUT, CuttlefishError
from cuttlefish.loggers.plots import draw_run
from cuttlefish.record.atomic import read_regular, write_atomic
from cuttlefish.record.fields import Record
from cuttlefish.record.folder import EPOCHS, LOG, PLOTS, PROFILE, RANKS, RECORD
from cuttlefish.record.problems import problems_of
from cuttlefish.record.record import clean_record, read_fields, read_record, write_record
from cuttlefish.record.redact import redact_log
from scripts.command import new_parser, reporting_errors

RESULTS = Path(__file__).resolve().parent.parent / "results"
RECORDS, FIGURES = RESULTS / "records", RESULTS / "figures"
DAMAGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError)
"""What drawing a damaged record may raise."""
SMOKE = "smoke"
"""Runs of this scale are no evidence: they stay in runs/, out of git and the report."""


def records_of(scale: str, results: Path) -> Path:
    """Return the folder of records of that scale. results: the results folder."""
    return results.parent / "runs" / "debug" if scale == SMOKE else results / "records"


def import_run(run: Path, records: Path = RECORDS) -> Path:
    """Copy what tables and figures need to records/<experiment>/<seed>-<run folder's name>; return it.

    A later record replaces an unfinished one and is stored beside a finished one, so that no started run is
    lost. Raises CuttlefishError for a record that is invalid or contradicts an existing one.
    """
    values = read_fields(run)
    if problems := problems_of(values):
        raise CuttlefishError(f"{run} is not imported: {problems[0]}")
    record = Record(**values)
    name = record.experiment_name or f"{record.model}-{record.data}-{record.method}"
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise CuttlefishError(f"{run} is not imported: experiment_name {name!r} leaves the folder of records")
    target = records / name / f"seed{record.seed}-{run.resolve().name}"
    there = read_record(target) if (target / RECORD).exists() else None
    if there and there.status == "finished" and there.started != record.started:
        target = target.with_name(f"{target.name}-{_when_and_where(record)}")
    record = clean_record(record)
    if (other := _other_outcome(record, records)) is not None:
        same = f"run {record.run_key}, started {record.started}"
        raise CuttlefishError(f"{run} is not imported: {other} has another outcome of {same}")
    target.mkdir(parents=True, exist_ok=True)
    write_record(target, record)
    for file in (EPOCHS, RANKS, PROFILE):
        if (run / file).exists():
            write_atomic(target / file, read_regular(run / file))
    if (run / LOG).exists():
        write_atomic(target / LOG, redact_log(read_regular(run / LOG).decode(errors="replace")))
    return target


def _other_outcome(record: Record, records: Path) -> Path | None:
    """Return a finished record of the same key and start with another outcome: a run has only one."""
    for path in sorted(records.rglob(RECORD)):
        try:
            there = read_record(path)
        except CuttlefishError:
            continue
        is_same_run = (there.run_key, there.started) == (record.run_key, record.started)
        if is_same_run and there.status == "finished" and there != record:
            return path.parent
    return None


def _when_and_where(record: Record) -> str:
    """Return a short text that distinguishes repeats of one key."""
    names = ("started", "device", "precision", "threads", "world_size")
    return sha256(repr([getattr(record, name) for name in names]).encode()).hexdigest()[:8]


def draw(folder: Path, records: Path = RECORDS, figures: Path = FIGURES) -> Path | None:
    """Draw the plots of one imported record from its files into figures/<experiment>/<seed and run>; return
    the folder, or None if a stopped run has nothing to draw."""
    target = figures / folder.relative_to(records)
    shutil.rmtree(target, ignore_errors=True)
    try:
        draw_run(folder, read_record(folder))
        if not (folder / PLOTS).exists():
            return None
        shutil.move(folder / PLOTS, target)
    finally:
        shutil.rmtree(folder / PLOTS, ignore_errors=True)
    return target


@reporting_errors
def main(arguments: list[str] | None = None) -> int:
    parser = new_parser("records", __doc__)
    parser.add_argument("action", choices=["import", "figures"])
    parser.add_argument("runs", nargs="*", type=Path)
    options = parser.parse_args(arguments)
    if options.action == "import":
        return _import(options.runs)
    return draw_all(RECORDS, FIGURES)


def _import(runs: list[Path]) -> int:
    """Import runs; print those that fail and continue with the others."""
    if not runs:
        usage = "python -m scripts.records import runs/reduced/resnet18-cuttlefish/*"
        raise CuttlefishError(f"import which runs? As in: {usage}")
    problems = []
    for run in runs:
        try:
            print(import_run(run))
        except CuttlefishError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{run} is not imported whole: {error.filename}: {error.strerror}")
    for problem in problems:
        print(f"cuttlefish: {problem}", file=sys.stderr)
    return EXIT_BAD_INPUT if problems else 0


def draw_all(records: Path, figures: Path) -> int:
    """Draw the plots of every record under `records`; print each failure; return 1 if any."""
    damaged = 0
    for path in sorted(records.rglob(RECORD)):
        try:
            print(draw(path.parent, records, figures) or f"{path.parent}: nothing to draw")
        except (CuttlefishError, OSError, *DAMAGE) as error:
            damaged += 1
            print(f"{path.parent}: not drawn: damaged ({type(error).__name__}: {error})", file=sys.stderr)
    return 1 if damaged else 0


if __name__ == "__main__":
    sys.exit(main())
