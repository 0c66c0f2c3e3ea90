"""What the paper claims (claims.yaml) judged by records and benches. Verdicts are computed here and nowhere typed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from cuttlefish.config.validate import convert
from cuttlefish.errors import CuttlefishError
from cuttlefish.evidence.admission import objection
from cuttlefish.evidence.benches import Bench
from cuttlefish.evidence.hardware import is_cpu
from cuttlefish.evidence.interval import INSIDE, MISSING, OPEN, OUTSIDE, Range, t_interval
from cuttlefish.evidence.records import Collection, Evidence
from cuttlefish.evidence.selection import Runs, is_time
from cuttlefish.plan.spec import Scale
from cuttlefish.report.claims.cost import Costs, arms_of
from cuttlefish.report.claims.entry import Entry
from cuttlefish.report.claims.rules import book
from cuttlefish.report.claims.rules.case import Case, Measure
from cuttlefish.report.claims.verdict import Judgement, Part, Reading, Verdict

PAPER, REDUCED = "paper", "reduced"
WORDS = {
    PAPER: {INSIDE: Judgement.REPRODUCED, OUTSIDE: Judgement.NOT_REPRODUCED, OPEN: Judgement.INCONCLUSIVE},
    REDUCED: {INSIDE: Judgement.HOLDS, OUTSIDE: Judgement.FAILS, OPEN: Judgement.INCONCLUSIVE},
}
REACHES = {
    "here": Judgement.NOT_RUN,
    "fp32": Judgement.NOT_RUN,
    "absolute": Judgement.NOT_RUN,
    "imagenet": Judgement.DATA_ABSENT,
}
"""What a claim is called of which there is no evidence, by what it takes."""
STRICT = ("fp32", "absolute")
"""Claims about time: only runs on one GPU in strict fp32 count at paper scale."""


Claim = Mapping[str, Any]


def load_claims(path: str | Path) -> list[Claim]:
    """The entries of claims.yaml. Raises CuttlefishError with one sentence for a file or an entry that cannot be judged: a key that
    there is not, a value of another type, a largest value of claims that have none."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CuttlefishError(f"There are no claims at {path}.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise CuttlefishError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, list):
        raise CuttlefishError(f"{path} should be a list of claims, not a {type(content).__name__}.")
    ids = [_checked(entry, path) for entry in content]
    numeric = {entry["id"] for entry in content if "value" in entry and isinstance(entry.get("accept"), list)}
    for entry in content:
        if lacking := {entry["id"], *entry["largest_of"]} - numeric if entry.get("largest_of") else ():
            raise CuttlefishError(
                f"{path}: {entry['id']} is the largest of claims, of which {min(lacking)} has no value with an accepted range."
            )
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise CuttlefishError(f"{path} has several claims {twice[0]}.")
    return content


def judge(
    collection: Collection,
    benches: Sequence[Bench],
    claims: Sequence[Claim],
    scales: Mapping[str, Scale] | None = None,
) -> list[Verdict]:
    """A verdict for every claim, in the order of the file. Runs that did not finish, or were not run as their scale is, do not count.

    scales: Of tables.yaml: what each scale runs, and why the times of its runs are no evidence of speed. A claim about nothing
    that the reduced scale runs has no reading there.
    """
    runs = Runs(run for run in collection.finished if not objection(run.record))
    strict = Runs(run for run in runs if _strict(run))
    scales = scales or {}
    costs = Costs(collection.runs, benches, claims, scales)
    verdicts = [
        _untimed(_verdict(entry, runs, strict, list(benches), claims, scales), entry, scales)
        for entry in claims
    ]
    return [_costed(verdict, entry, costs) for verdict, entry in zip(verdicts, claims, strict=True)]


def _checked(entry: Any, path: str | Path) -> str:
    return convert(
        entry, Entry, f"{path}: {entry.get('id', 'a claim') if isinstance(entry, dict) else 'a claim'}"
    ).id


def _costed(verdict: Verdict, entry: Claim, costs: Costs) -> Verdict:
    def costed(reading: Reading, rule: Any, scale: str) -> Reading:
        return (
            replace(reading, cost=costs.of(rule, scale, entry["seeds"][scale], reading.command))
            if reading.command
            else reading
        )

    rules = _rules(entry)
    return replace(
        verdict,
        paper=costed(verdict.paper, rules[PAPER], PAPER),
        reduced=costed(verdict.reduced, rules[REDUCED], REDUCED),
    )


def _rules(entry: Claim) -> dict[str, Any]:
    return {PAPER: entry["rule"], REDUCED: entry.get("reduced_rule", entry["rule"])}


def _verdict(
    entry: Claim,
    runs: Runs,
    strict: Runs,
    benches: list[Bench],
    claims: Sequence[Claim],
    scales: Mapping[str, Scale],
) -> Verdict:
    accept = entry.get("accept")
    numbers = (float(accept[0]), float(accept[1])) if isinstance(accept, list) else None
    paper, reduced = (
        _contradicted(_paper(entry, runs, strict, benches), entry, claims),
        _reduced(entry, runs, benches, scales.get(REDUCED, Scale())),
    )
    return Verdict(
        id=entry["id"], what=entry["what"], source=entry["source"], reach=entry["reach"], value=entry.get("value"), accept=numbers,
        accepted=str(accept or ""), accepted_reduced=entry.get("reduced", ""), note=entry.get("note", ""),
        paper=paper, reduced=reduced,
    )  # fmt: skip


def _untimed(verdict: Verdict, entry: Claim, scales: Mapping[str, Scale]) -> Verdict:
    """Readings of the clock of runs whose times are no evidence of speed: shown, and not judged."""
    rules, times = _rules(entry), {name: scale.times for name, scale in scales.items() if scale.times}
    shown = {
        scale: replace(
            reading, verdict=Judgement.INCONCLUSIVE, notes=[times[scale].rstrip("."), *reading.notes]
        )
        for scale, reading in ((PAPER, verdict.paper), (REDUCED, verdict.reduced))
        if scale in times and reading.verdict in WORDS[scale].values() and _of_the_clock(rules[scale])
    }
    return replace(verdict, **shown)


def _of_the_clock(rule: Any) -> bool:
    return any(
        is_time(str(one.get(name)))
        for one in (rule if isinstance(rule, list) else [rule])
        for name in ("of", "over")
    )


def _paper(entry: Claim, runs: Runs, strict: Runs, benches: list[Bench]) -> Reading:
    """Claims about time count runs on one GPU in strict fp32 only; where there are others only, that is the verdict."""
    admitted = runs, benches
    if entry["reach"] in STRICT:
        admitted = strict, [bench for bench in benches if not bench.on_cpu]
    measures = _measures(entry["rule"], entry, PAPER, *admitted)
    if not any(_present(measure) for measure in measures):
        elsewhere = _measures(entry["rule"], entry, PAPER, runs, benches)
        if any(_present(measure) for measure in elsewhere):
            return _reading(elsewhere, Judgement.OTHER_HARDWARE, entry, PAPER)
        return _reading(measures, REACHES[entry["reach"]], entry, PAPER)
    if entry["reach"] == "absolute":
        return _reading(measures, Judgement.SHOWN, entry, PAPER)
    return _reading(measures, WORDS[PAPER][_together(measures)], entry, PAPER)


def _reduced(entry: Claim, runs: Runs, benches: list[Bench], there: Scale) -> Reading:
    if "reduced" not in entry:
        return Reading(Judgement.NO_READING)
    out = [there.left_out(arm) for arm in arms_of(_rules(entry)[REDUCED])]
    if out and all(out):
        return Reading(
            Judgement.NO_READING, notes=[f"the reduced scale has no {' and no '.join(dict.fromkeys(out))}"]
        )
    measures = _measures(_rules(entry)[REDUCED], entry, REDUCED, runs, [b for b in benches if b.on_cpu])
    verdict = (
        WORDS[REDUCED][_together(measures)]
        if any(_present(measure) for measure in measures)
        else Judgement.NOT_RUN
    )
    reading = _reading(measures, verdict, entry, REDUCED)
    absent = [
        f"the reduced scale has no {name}, so this can fail there but not hold"
        for name in dict.fromkeys(filter(None, out))
    ]
    return replace(reading, notes=[*absent, *reading.notes])


def _contradicted(reading: Reading, entry: Claim, entries: Iterable[Claim]) -> Reading:
    """The paper contradicts itself where a claim of a largest value (`largest_of: [ids]`) lies below one of the values that it is
    the largest of, and the accepted ranges share nothing. A property of the entries: no run can change it."""
    others = [other for other in entries if other["id"] in entry.get("largest_of", ())]
    above = [
        other
        for other in others
        if entry["value"] < other["value"] and entry["accept"][1] < other["accept"][0]
    ]
    if not above:
        return reading
    note = f"the paper also states {above[0]['value']:g} ({above[0]['id']}, {above[0]['source']})"
    return replace(reading, verdict=Judgement.CONTRADICTED, notes=[note, *reading.notes])


def _measures(rule: Any, entry: Claim, scale: str, runs: Runs, benches: list[Bench]) -> list[Measure]:
    accept = Range(*map(float, entry["accept"])) if isinstance(entry.get("accept"), list) else Range()
    return book.apply(rule, Case(entry["id"], scale, runs, benches, accept, entry["seeds"][scale]))


def _together(measures: Iterable[Measure]) -> str:
    """All parts must hold. One that fails decides; one that is open or missing leaves the claim open."""
    states = {_part(measure).state for measure in measures}
    return OUTSIDE if OUTSIDE in states else INSIDE if states == {INSIDE} else OPEN


def _present(measure: Measure) -> bool:
    return bool(measure.samples)


def _strict(run: Evidence) -> bool:
    return run.record.precision == "fp32" and run.record.world_size == 1 and not is_cpu(run.record.device)


def _part(measure: Measure) -> Part:
    interval = measure.interval or t_interval(measure.samples)
    state = measure.accept.place(interval) if interval and len(measure.samples) >= measure.needs else OPEN
    value = measure.value if not measure.averaged else mean(measure.samples) if measure.samples else None
    limits = measure.accept.limits()
    shown = (len(measure.samples), measure.needs, limits, state if measure.samples else MISSING)
    return Part(measure.name, value, interval, *shown, list(measure.samples), measure.missing)


def _reading(measures: list[Measure], verdict: Judgement, entry: Claim, scale: str) -> Reading:
    parts = [_part(measure) for measure in measures]
    first = next((part for part in parts if part.n), parts[0])
    runs = list({id(run): run for measure in measures for run in measure.runs}.values())
    benches = list({bench.name: bench for measure in measures for bench in measure.benches}.values())
    return Reading(
        verdict, first.value, first.interval, first.n, first.needs,
        hardware=sorted({run.hardware for run in runs} | {bench.hardware for bench in benches}),
        runs=list(dict.fromkeys(run.record.run_key for run in runs)), benches=[bench.name for bench in benches],
        composed=any(measure.composed for measure in measures), parts=parts, notes=_notes(measures, parts),
        command=(entry.get("run") or {}).get(scale, ""),
    )  # fmt: skip


def _notes(measures: list[Measure], parts: list[Part]) -> list[str]:
    few = [f"{part.name}: {part.n} of {part.needs} samples" for part in parts if 0 < part.n < part.needs]
    absent = [measure.missing for measure in measures if measure.missing]
    return list(dict.fromkeys([*absent, *few, *(note for measure in measures for note in measure.notes)]))
