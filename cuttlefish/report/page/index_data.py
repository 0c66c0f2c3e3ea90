"""The runs as a compact table that the script of the index page filters, sorts and pages."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from cuttlefish.display.format import ratio_of
from cuttlefish.report.page.run_page import RunView

LONGEST = 120
"""Maximum length of a field: records are untrusted text, and the index must stay small."""
Kind = Literal["text", "whole", "count", "percent", "times", "seconds"]
COLUMNS: dict[str, tuple[str, Kind, Callable[[Mapping[str, Any]], Any]]] = {
    "key": ("run", "text", lambda record: record.run_key),
    "model": ("model", "text", lambda record: record.model),
    "data": ("data", "text", lambda record: record.data),
    "method": ("method", "text", lambda record: record.method),
    "preset": ("preset", "text", lambda record: record.preset or ""),
    "seed": ("seed", "whole", lambda record: record.seed),
    "scale": ("scale", "text", lambda record: record.scale),
    "status": ("status", "text", lambda record: record.status),
    "accuracy": ("accuracy", "percent", lambda record: record.score),
    "params": ("parameters", "count", lambda record: record.params_total),
    "smaller": ("smaller by", "times", lambda record: ratio_of(record.params_full, record.params_total)),
    "e": ("E", "whole", lambda record: record.switch_epoch),
    "compute": ("compute time", "seconds", lambda record: record.compute_seconds),
    "precision": ("precision", "text", lambda record: record.precision),
}
"""key -> (heading, value format, function of a record)."""


def index_data(views: Sequence[RunView]) -> dict[str, Any]:
    """Return {columns: [{key, title, kind}], words: [...], rows: [...]}; texts are indices into words."""
    words: dict[str, int] = {}
    rows = [
        [*(_value(kind, of(view.run.record), words) for _, kind, of in COLUMNS.values()), view.name]
        for view in views
    ]
    columns = [{"key": key, "title": title, "kind": kind} for key, (title, kind, _) in COLUMNS.items()]
    return {"columns": columns, "words": list(words), "rows": rows}


def _value(kind: Kind, value: Any, words: dict[str, int]) -> int | float | None:
    if kind == "text":
        return words.setdefault(str(value)[:LONGEST], len(words))
    return round(value, 4) if isinstance(value, float) else value
