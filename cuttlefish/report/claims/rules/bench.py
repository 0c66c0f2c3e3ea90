"""Rules based on benches: steps with and without extra batch norms, profiles of stacks and of layers."""

from statistics import mean
from typing import Any

from cuttlefish.evidence.benches import newest
from cuttlefish.evidence.step_times import step_ratio, step_row
from cuttlefish.report.claims.rules.case import Case, Measure


def step_saving(case: Case, slow: dict[str, Any], fast: dict[str, Any]) -> list[Measure]:
    """Percent by which a step of `fast` is shorter than one of `slow`, one sample per round."""
    for bench in reversed([bench for bench in case.benches if bench.what == "steps"]):
        rows = step_row(bench, **slow), step_row(bench, **fast)
        if all(rows):
            ratio = step_ratio(*rows)
            interval = tuple(100 * (1 - 1 / bound) for bound in ratio.bounds)
            samples = [100 * (1 - 1 / sample) for sample in ratio.samples]
            notes = ["the bench kept no single rounds: the interval is that of the fastest and slowest"]
            notes = notes if len(samples) == 1 else []
            return [case.measure(samples, [], benches=[bench], interval=interval, notes=notes)]
    return [case.missing("no bench of these steps (make bench)")]


def profiled_k(case: Case, model: str, counted: str, facts: dict[str, Any]) -> list[Measure]:
    """K of a stack profile, one sample per repetition.

    Args:
        counted: k (leading dense layers) or first_factorized (k + 1).
        facts: Required width, batch, … of the bench.
    """
    bench = newest(case.benches, "profile", profiled="stacks", model=model, **facts)
    if bench is None:
        return [case.missing(f"no stack profile of {model} at {_words(facts)}")]
    return [case.measure([float(repeat[counted]) for repeat in bench.facts["repeats"]], [], benches=[bench])]


def layer_speedup(case: Case, model: str, kind: str, ratio: float, facts: dict[str, Any]) -> list[Measure]:
    """Mean forward speed-up at a rank ratio over layers (or sub-blocks) of a kind, a sample a repetition."""
    bench = newest(case.benches, "profile", profiled="layers", model=model, **facts)
    rows = bench.find(kind=kind) if bench else []
    if not rows or ratio not in bench.facts["ratios"]:
        return [case.missing(f"no layer profile of {model} at {_words(facts)} and rank ratio {ratio}")]
    place = bench.facts["ratios"].index(ratio)
    repeats = range(len(rows[0]["full_s"]))
    samples = [
        mean(row["full_s"][repeat] / row["low_s"][place][repeat] for row in rows) for repeat in repeats
    ]
    return [case.measure(samples, [], benches=[bench], notes=[f"over {len(rows)} of kind {kind}"])]


def _words(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
