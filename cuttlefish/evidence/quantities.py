"""Quantities of a record that tables show. Model size has three definitions, which are never mixed."""

from collections.abc import Sequence
from statistics import mean

from cuttlefish.display.format import ratio_of
from cuttlefish.evidence.records import Evidence
from cuttlefish.evidence.seeds import over_seeds, paired
from cuttlefish.record.fields import Record

BITS = 32
"""Bits per parameter of the full-rank model, for comparing stored bits."""


def compression(record: Record) -> float | None:
    """Return the parameter count of the full-rank model over that of this one."""
    return ratio_of(record.params_full, record.params_total)


def compression_nonzero(record: Record) -> float | None:
    return ratio_of(record.params_full, record.params_nonzero)


def compression_stored(record: Record) -> float | None:
    return ratio_of(BITS * record.params_full, record.params_stored_bits)


def fewer_macs(record: Record) -> float | None:
    return ratio_of(record.macs_full, record.macs_final)


def hours(record: Record) -> float:
    return record.compute_seconds / 3600


def hours_as_baseline(record: Record) -> float:
    """Return the hours without computing ranks only for logs, as in a run that stayed at full rank."""
    logged = 0.0 if record.ranks else (record.seconds or {}).get("ranks", 0.0)
    return (record.compute_seconds - logged) / 3600


def speedup(runs: Sequence[Evidence], baseline: Sequence[Evidence]) -> float | None:
    """Return baseline hours over ours, for seeds that both have on the same hardware; None without any."""
    pairs = [pair for pair in paired(runs, baseline) if pair[0].timed_on == pair[1].timed_on]
    if not pairs:
        return None
    theirs = sum(hours_as_baseline(other.record) for _, other in pairs)
    return ratio_of(theirs, sum(hours(own.record) for own, _ in pairs))


def accuracy_lost(runs: Sequence[Evidence], baseline: Sequence[Evidence]) -> float | None:
    """Return how many points the last epoch's accuracy is below the baseline's, for seeds that both have."""
    pairs = [
        (own.record.accuracy_final, other.record.accuracy_final) for own, other in paired(runs, baseline)
    ]
    is_known = pairs and all(None not in pair for pair in pairs)
    return mean(other - own for own, other in pairs) if is_known else None


def stated_quantity(name: str, runs: Sequence[Evidence], baseline: Sequence[Evidence]) -> float | None:
    """Return our value of a quantity of the paper: from pairs with the baseline, or a mean over seeds."""
    if name in ("speedup", "accuracy_lost"):
        return {"speedup": speedup, "accuracy_lost": accuracy_lost}[name](runs, baseline)
    found = over_seeds(runs, compression if name == "compression" else lambda record: getattr(record, name))
    return found.mean if found else None
