"""The list printed by `--dry-run`: each run with its state and estimated cost."""

from collections.abc import Iterable

from cuttlefish.display.format import counted
from cuttlefish.planning.cost import Estimates
from cuttlefish.planning.execute import each_once
from cuttlefish.planning.planned_run import PlannedRun
from cuttlefish.planning.state import Known, State, state_of, state_words

UNKNOWN = "unknown"


def run_list(runs: Iterable[PlannedRun], known: Known, estimates: Estimates) -> list[str]:
    """Return one line per distinct run, and the total of what is still to do."""
    unique = each_once(runs)
    rows = [_row(run, state_of(run, known), estimates) for run in unique]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return [*lines, _sum(unique, known, estimates)]


def _row(run: PlannedRun, state: State, estimates: Estimates) -> tuple[str, ...]:
    cost = "" if state is State.FINISHED else _cost(run, estimates)
    named = run.table, f"{run.model} on {run.data}", run.title, f"seed {run.seed}"
    return *named, run.run_key, state_words(run, state), cost


def _cost(run: PlannedRun, estimates: Estimates) -> str:
    if (hours := estimates.hours(run)) is not None:
        return _hours(hours)
    if (benched := estimates.by_bench(run)) is not None:
        return f"{_hours(benched[0])} by the bench"
    return UNKNOWN


def _sum(runs: Iterable[PlannedRun], known: Known, estimates: Estimates) -> str:
    todo = [run for run in runs if state_of(run, known) is not State.FINISHED]
    if not todo:
        return "nothing to do"
    timed = {run.run_key: hours for run in todo if (hours := estimates.hours(run)) is not None}
    benched = [found for run in todo if run.run_key not in timed and (found := estimates.by_bench(run))]
    lengths = []
    if timed:
        lengths.append(f"about {_hours(sum(timed.values()))}")
    if benched:
        hours = _hours(sum(hours for hours, _ in benched))
        lengths.append(f"about {hours} if every step took what a dense one did on {benched[0][1]}")
    if unknown := len(todo) - len(timed) - len(benched):
        lengths.append(f"{unknown} of unknown length")
    return f"{counted(len(todo), 'run')} to do: {', and '.join(lengths)}"


def _hours(hours: float) -> str:
    return f"{hours:,.0f} device hours" if hours >= 100 else f"{hours:.3g} device hours"
