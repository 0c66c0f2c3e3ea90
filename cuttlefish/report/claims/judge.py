"""Judge the paper's claims (claims.yaml) by records and benches; no verdict is written by hand."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cuttlefish.evidence.admission import why_not_evidence
from cuttlefish.evidence.benches import Bench
from cuttlefish.evidence.interval import INSIDE, OPEN, OUTSIDE, Range
from cuttlefish.evidence.records import Collection, Evidence
from cuttlefish.evidence.selection import Runs, is_time
from cuttlefish.planning.spec import Scale
from cuttlefish.report.claims.cost import Costs, arms_of
from cuttlefish.report.claims.entry import Claim
from cuttlefish.report.claims.reading import reading_of, state_of_all
from cuttlefish.report.claims.rules import book
from cuttlefish.report.claims.rules.case import Case, Measure
from cuttlefish.report.claims.verdict import Judgement, Reading, Verdict

PAPER, REDUCED = "paper", "reduced"
WORDS = {
    PAPER: {INSIDE: Judgement.REPRODUCED, OUTSIDE: Judgement.NOT_REPRODUCED, OPEN: Judgement.INCONCLUSIVE},
    REDUCED: {INSIDE: Judgement.HOLDS, OUTSIDE: Judgement.FAILS, OPEN: Judgement.INCONCLUSIVE},
}
STRICT = ("fp32", "absolute")
"""Claims about time: only runs on one GPU in strict fp32 count at paper scale."""


def judge(
    collection: Collection,
    benches: Sequence[Bench],
    claims: Sequence[Claim],
    scales: Mapping[str, Scale] | None = None,
) -> list[Verdict]:
    """Return a verdict for every claim, in the order of the file.

    Unfinished runs, and runs that break the rules of their scale, do not count.

    Args:
        scales: From tables.yaml: what each scale runs, and why its times are no evidence of speed. A claim
            about nothing that the reduced scale runs has no reading there.
    """
    judging = Judge(collection, list(benches), claims, scales or {})
    return [judging.verdict(entry) for entry in claims]


class Judge:
    """The evidence for verdicts; see `judge`."""

    def __init__(
        self,
        collection: Collection,
        benches: list[Bench],
        claims: Sequence[Claim],
        scales: Mapping[str, Scale],
    ):
        self._runs = Runs(run for run in collection.finished if not why_not_evidence(run.record))
        self._strict = Runs(run for run in self._runs if _is_strict(run))
        self._benches, self._claims, self._scales = benches, claims, scales
        self._costs = Costs(collection.runs, benches, claims, scales)

    def verdict(self, entry: Claim) -> Verdict:
        """Return the verdict on one claim."""
        accept = entry.get("accept")
        return Verdict(
            **{name: entry[name] for name in ("id", "what", "source", "reach")},
            value=entry.get("value"),
            accept=(float(accept[0]), float(accept[1])) if isinstance(accept, list) else None,
            accepted=str(accept or ""),
            accepted_reduced=entry.get("reduced", ""),
            note=entry.get("note", ""),
            paper=self._finished(_contradicted(self._paper(entry), entry, self._claims), entry, PAPER),
            reduced=self._finished(self._reduced(entry), entry, REDUCED),
        )

    def _finished(self, reading: Reading, entry: Claim, scale: str) -> Reading:
        """Add the cost of its command; do not judge times of runs whose times are no evidence."""
        rule, times = _rule(entry, scale), self._scales.get(scale, Scale()).times
        if times and reading.verdict in WORDS[scale].values() and _is_of_the_clock(rule):
            notes = [times.rstrip("."), *reading.notes]
            reading = replace(reading, verdict=Judgement.INCONCLUSIVE, notes=notes)
        if not reading.command:
            return reading
        return replace(reading, cost=self._costs.of(rule, scale, entry["seeds"][scale], reading.command))

    def _paper(self, entry: Claim) -> Reading:
        """Read a claim at paper scale; those about time count only runs on one GPU in strict fp32."""
        admitted = self._runs, self._benches
        if entry["reach"] in STRICT:
            admitted = self._strict, [bench for bench in self._benches if not bench.on_cpu]
        measures = _measures(entry, PAPER, *admitted)
        if any(measure.samples for measure in measures):
            absolute = entry["reach"] == "absolute"
            judgement = Judgement.SHOWN if absolute else WORDS[PAPER][state_of_all(measures)]
        else:
            judgement = Judgement.DATA_ABSENT if entry["reach"] == "imagenet" else Judgement.NOT_RUN
            elsewhere = _measures(entry, PAPER, self._runs, self._benches)
            if any(measure.samples for measure in elsewhere):
                measures, judgement = elsewhere, Judgement.OTHER_HARDWARE
        return reading_of(measures, judgement, _command(entry, PAPER))

    def _reduced(self, entry: Claim) -> Reading:
        """Read a claim at reduced scale, with a note on what that scale does not run."""
        if "reduced" not in entry:
            return Reading(Judgement.NO_READING)
        there = self._scales.get(REDUCED, Scale())
        out = [there.left_out(arm) for arm in arms_of(_rule(entry, REDUCED))]
        absent = dict.fromkeys(filter(None, out))
        if out and all(out):
            note = f"the reduced scale has no {' and no '.join(absent)}"
            return Reading(Judgement.NO_READING, notes=[note])
        measures = _measures(entry, REDUCED, self._runs, [bench for bench in self._benches if bench.on_cpu])
        present = any(measure.samples for measure in measures)
        judgement = WORDS[REDUCED][state_of_all(measures)] if present else Judgement.NOT_RUN
        reading = reading_of(measures, judgement, _command(entry, REDUCED))
        notes = [f"the reduced scale has no {name}, so this can fail there but not hold" for name in absent]
        return replace(reading, notes=[*notes, *reading.notes])


def _rule(entry: Claim, scale: str) -> Any:
    return entry.get("reduced_rule", entry["rule"]) if scale == REDUCED else entry["rule"]


def _command(entry: Claim, scale: str) -> str:
    return (entry.get("run") or {}).get(scale, "")


def _measures(entry: Claim, scale: str, runs: Runs, benches: list[Bench]) -> list[Measure]:
    accept = Range(*map(float, entry["accept"])) if isinstance(entry.get("accept"), list) else Range()
    case = Case(entry["id"], scale, runs, benches, accept, entry["seeds"][scale])
    return book.apply(_rule(entry, scale), case)


def _is_of_the_clock(rule: Any) -> bool:
    rules = rule if isinstance(rule, list) else [rule]
    return any(is_time(str(one.get(name))) for one in rules for name in ("of", "over"))


def _is_strict(run: Evidence) -> bool:
    return run.record.precision == "fp32" and run.record.world_size == 1 and not run.record.on_cpu


def _contradicted(reading: Reading, entry: Claim, entries: Iterable[Claim]) -> Reading:
    """Find contradictions within the paper: a claim of a largest value (`largest_of: [ids]`) below one of
    these values, with disjoint accepted ranges. This depends on the entries only; no run can change it."""
    above = [
        other
        for other in entries
        if other["id"] in entry.get("largest_of", ())
        and entry["value"] < other["value"]
        and entry["accept"][1] < other["accept"][0]
    ]
    if not above:
        return reading
    note = f"the paper also states {above[0]['value']:g} ({above[0]['id']}, {above[0]['source']})"
    return replace(reading, verdict=Judgement.CONTRADICTED, notes=[note, *reading.notes])
