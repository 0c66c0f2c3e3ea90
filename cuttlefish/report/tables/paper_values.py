"""The paper's value for a row of ours, and the difference if the two are comparable."""

from collections.abc import Mapping, Sequence
from typing import Any

from cuttlefish.errors import CuttlefishError
from cuttlefish.evidence.admission import PAPER_EPOCHS
from cuttlefish.evidence.quantities import stated_quantity
from cuttlefish.evidence.records import Evidence
from cuttlefish.planning.spec import Stated
from cuttlefish.report.tables.table import Cell, text_cell

Claims = Mapping[str, Mapping[str, Any]]
SHOWN = {
    "accuracy_best": ("best {:.4g} %", "{:+.2f}"),
    "accuracy_lost": ("{:.3g} points lost", "{:+.2f}"),
    "switch_epoch": ("E {:.4g}", "{:+.1f}"),
    "speedup": ("{:.3g}× faster", "{:+.2f}"),
    "compression": ("{:.4g}× smaller", "{:+.2f}"),
}
"""Formats of a quantity and of its difference."""


def paper_cell(
    stated: Sequence[Stated],
    claims: Claims,
    runs: Sequence[Evidence],
    baseline: Sequence[Evidence],
    scale: str,
) -> Cell:
    """Return `E 82.3 of 300 (ours +3.1)`, without a difference below paper scale or if ours is missing.

    Raises:
        CuttlefishError: A claim has no value, or a quantity is unknown.
    """
    return text_cell(" · ".join(_one(item, claims, runs, baseline, scale) for item in stated))


def _one(
    item: Stated, claims: Claims, runs: Sequence[Evidence], baseline: Sequence[Evidence], scale: str
) -> str:
    if not isinstance(value := claims.get(item.claim, {}).get("value"), int | float):
        raise CuttlefishError(f"row {item.row}: the claim {item.claim} has no value to show")
    if item.quantity not in SHOWN:
        raise CuttlefishError(f"row {item.row}: quantity {item.quantity!r} is not one of {', '.join(SHOWN)}")
    text, difference = SHOWN[item.quantity]
    if item.quantity == "switch_epoch" and item.data in PAPER_EPOCHS:
        text += f" of {PAPER_EPOCHS[item.data][0]}"
    ours = stated_quantity(item.quantity, runs, baseline) if scale == "paper" else None
    return text.format(value) + (f" (ours {difference.format(ours - value)})" if ours is not None else "")
