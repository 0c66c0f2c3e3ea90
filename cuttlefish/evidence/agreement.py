"""Compare a repeated run with its record: bit by bit where that is promised, else within a tolerance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from cuttlefish.display.format import UNKNOWN
from cuttlefish.record.fields import Record

Row = Mapping[str, Any]
CLOCKS = {"seconds", "compute_seconds", "wall_seconds"}
EQUAL = ("epochs_trained", "k", "params_full", "macs_full")
POINTS = {"accuracy_final": 1.5, "accuracy_best": 1.5}
METRIC_POINTS = 1.5
"""Percentage points. Runs that differ in the last bit diverge like two seeds, at reduced scale by 0.5."""
SIZES = ("params_total", "params_trainable", "params_nonzero", "params_stored_bits", "macs_final")
SHARES = {"loss_final": 0.1, **dict.fromkeys(SIZES, 0.05)}
EPOCHS_SHARE, RANK_SHARE, RANK_STEPS = 0.1, 0.1, 2
"""E may differ by a tenth of the run (at least one epoch), a rank by a tenth of itself (at least two)."""
BITWISE = ("fp32", "fp64")


@dataclass(frozen=True)
class Difference:
    """One figure of two runs.

    Attributes:
        allowed: The largest difference allowed, in words.
    """

    name: str
    recorded: Any
    repeated: Any
    allowed: str
    within: bool


def unlike(one: Record, other: Record) -> list[str]:
    """List the differences in hardware and software, each in words: `torch 2.9 -> 2.14`."""
    names = ("device", "precision", "threads", "world_size", "platform", "python", "git_commit", "git_dirty")
    packages = sorted({*one.packages, *other.packages})
    pairs = [(name.replace("_", " "), getattr(one, name), getattr(other, name)) for name in names]
    pairs += [(name, one.packages.get(name), other.packages.get(name)) for name in packages]
    return [f"{name} {_word(a)} -> {_word(b)}" for name, a, b in pairs if a != b]


def bitwise(one: Record, other: Record) -> bool:
    """Return whether bitwise equality is promised.

    It requires a CPU, fp32 or fp64, one process, deterministic mode without compilation, and the same CPU,
    threads and torch.
    """
    trainer = (one.config or {}).get("trainer", {})
    asked = trainer.get("deterministic") and not trainer.get("compile")
    alike = ("device", "precision", "threads", "world_size")
    same = all(getattr(one, name) == getattr(other, name) for name in alike)
    same = same and one.packages.get("torch") == other.packages.get("torch")
    return bool(asked and same and one.on_cpu and one.precision in BITWISE and one.world_size == 1)


def differences(one: Record, other: Record, exact: bool) -> list[Difference]:
    """Compare every figure that either record has, in reading order."""
    rules = [(name, f"{limit} points", _by_points(limit)) for name, limit in POINTS.items()]
    rules += [(name, f"{share:.0%}", _by_share(share)) for name, share in SHARES.items()]
    steps = max(1, round(EPOCHS_SHARE * (one.epochs_trained or one.epochs)))
    rules += [
        ("switch_epoch", f"{steps} epochs", _by_points(steps)),
        *((name, "equal", _same) for name in EQUAL),
    ]
    found = []
    for name, allowed, agrees in rules:
        if exact:
            allowed, agrees = "equal", _same
        pair = getattr(one, name), getattr(other, name)
        if pair != (None, None):
            found.append(Difference(name, *pair, allowed, agrees(*pair)))
    return [*found, *_metrics(one, other, exact), *_ranks(one.ranks or {}, other.ranks or {}, exact)]


def first_unlike_epoch(one: Sequence[Row], other: Sequence[Row]) -> int | None:
    """Return the first epoch whose rows differ in anything but times; None if all agree."""
    for epoch, pair in enumerate(zip_longest(one, other, fillvalue={}), 1):
        shared = pair[0].keys() & pair[1].keys() - CLOCKS  # rows of earlier versions have fewer
        if not shared or any(repr(pair[0][key]) != repr(pair[1][key]) for key in shared):
            return epoch
    return None


def _metrics(one: Record, other: Record, exact: bool) -> list[Difference]:
    """Compare the metrics besides accuracy, where both have them: earlier records have accuracy only."""
    first, second = one.metrics or {}, other.metrics or {}
    agrees, allowed = (_same, "equal") if exact else (_by_points(METRIC_POINTS), f"{METRIC_POINTS} points")
    return [
        Difference(name, first[name], second[name], allowed, agrees(first[name], second[name]))
        for name in first
        if name in second and name != "accuracy"
    ]


def _ranks(one: Mapping[str, int], other: Mapping[str, int], exact: bool) -> list[Difference]:
    """Compare the ranks of all layers in one line, by the layer that differs most."""
    if not one and not other:
        return []
    if one.keys() != other.keys():
        return [Difference("ranks", f"{len(one)} layers", f"{len(other)} layers", "the same layers", False)]
    limits = {layer: 0.0 if exact else max(RANK_STEPS, RANK_SHARE * rank) for layer, rank in one.items()}
    worst = max(one, key=lambda layer: abs(one[layer] - other[layer]) - limits[layer])
    within = abs(one[worst] - other[worst]) <= limits[worst]
    name = f"ranks of {len(one)} layers ({worst})"
    return [Difference(name, one[worst], other[worst], "equal" if exact else f"{limits[worst]:.3g}", within)]


def _same(one: Any, other: Any) -> bool:
    return one == other


def _by_points(limit: float) -> Any:
    return lambda one, other: one is not None and other is not None and abs(one - other) <= limit


def _by_share(share: float) -> Any:
    return lambda one, other: one is not None and other is not None and abs(one - other) <= share * abs(one)


def _word(value: Any) -> str:
    return UNKNOWN if value is None else str(value)
