"""Turn the measures of a rule into a reading: its parts, its evidence, and what is missing."""

from collections.abc import Iterable
from statistics import mean

from cuttlefish.evidence.interval import INSIDE, MISSING, OPEN, OUTSIDE, t_interval
from cuttlefish.report.claims.rules.case import Measure
from cuttlefish.report.claims.verdict import Judgement, Part, Reading


def reading_of(measures: list[Measure], verdict: Judgement, command: str) -> Reading:
    """Return the reading of these measures. Its first part, whose value it has, is one that refutes the
    claim, or else one with samples."""
    parts = sorted(map(_part, measures), key=lambda part: (part.state != OUTSIDE, not part.n))
    first = parts[0]
    runs = list({id(run): run for measure in measures for run in measure.runs}.values())
    benches = list({bench.name: bench for measure in measures for bench in measure.benches}.values())
    numbers = first.value, first.interval, first.n, first.needs
    return Reading(
        verdict,
        *numbers,
        hardware=sorted({run.hardware for run in runs} | {bench.hardware for bench in benches}),
        runs=list(dict.fromkeys(run.record.run_key for run in runs)),
        benches=[bench.name for bench in benches],
        composed=any(measure.composed for measure in measures),
        parts=parts,
        notes=_notes(measures, parts),
        command=command,
    )


def state_of_all(measures: Iterable[Measure]) -> str:
    """Combine the states of all parts: any failure decides; else an open or missing part leaves it open."""
    states = {_part(measure).state for measure in measures}
    return OUTSIDE if OUTSIDE in states else INSIDE if states == {INSIDE} else OPEN


def _part(measure: Measure) -> Part:
    interval = measure.interval or t_interval(measure.samples)
    state = measure.accept.place(interval) if interval and len(measure.samples) >= measure.needs else OPEN
    value = measure.value if not measure.averaged else mean(measure.samples) if measure.samples else None
    limits = measure.accept.limits()
    shown = (len(measure.samples), measure.needs, limits, state if measure.samples else MISSING)
    return Part(measure.name, value, interval, *shown, list(measure.samples), measure.missing)


def _notes(measures: list[Measure], parts: list[Part]) -> list[str]:
    few = [f"{part.name}: {part.n} of {part.needs} samples" for part in parts if 0 < part.n < part.needs]
    absent = [measure.missing for measure in measures if measure.missing]
    return list(dict.fromkeys([*absent, *few, *(note for measure in measures for note in measure.notes)]))
