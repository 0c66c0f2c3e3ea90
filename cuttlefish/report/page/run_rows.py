"""Rows of text about a run: result, config, ranks, profile."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from html import escape
from typing import Any

from markupsafe import Markup

from cuttlefish.config.schema import Config
from cuttlefish.config.validate import to_dict
from cuttlefish.display.format import (
    UNKNOWN,
    bar,
    count,
    duration,
    memory,
    named,
    percent,
    short_count,
    times,
)
from cuttlefish.display.rank_history import full_ranks
from cuttlefish.display.screen import layer_order, shrinkage, switch_words
from cuttlefish.display.stack_rows import stack_rows
from cuttlefish.record.fields import Record

_as_json = json.JSONEncoder(ensure_ascii=False).encode


def _others(record: Record) -> dict[str, float] | None:
    return {name: value for name, value in (record.metrics or {}).items() if name != "accuracy"} or None


def fact_list(rows: Iterable[tuple[str, str] | tuple[str, str, bool]], look: str = "") -> Markup:
    """Return HTML. rows: (name, value) or (name, value, whether to highlight it).

    Built in Python and cached, because thousands of pages share many pairs.
    """
    return Markup(f'<dl class="facts {look}">{"".join([_fact(*row) for row in rows])}</dl>')


@lru_cache(maxsize=20_000)
def _fact(name: str, value: str, differs: bool = False) -> str:
    look = ' class="differs"' if differs else ""
    return f"<div{look}><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"


def result_rows(record: Record) -> list[tuple[str, str]]:
    stored, parts = record.params_stored_bits, (record.seconds or {}).items()
    seconds = {part: duration(value) for part, value in parts if isinstance(value, int | float)}
    rows = {
        "accuracy, last epoch": percent(record.accuracy_final),
        "accuracy, best epoch (chosen on the evaluated set)": percent(record.accuracy_best),
        "other metrics": shown(_others(record)),
        "loss, last epoch": UNKNOWN if record.loss_final is None else f"{record.loss_final:.4f}",
        "switch": switch_words(record),
        "K": shown(record.k),
        "parameters, all": shrinkage(record.params_full, record.params_total, "smaller", count),
        "parameters, not zero": count(record.params_nonzero),
        "stored": UNKNOWN if stored is None else f"{count(stored)} bits",
        "MACs an example": shrinkage(record.macs_full, record.macs_final, "fewer", short_count),
        "compute time": duration(record.compute_seconds),
        "wall time": duration(record.wall_seconds),
        "by part": named(seconds) or UNKNOWN,
        "peak memory": memory(record.peak_memory_bytes),
        "size to be met": shown(record.target),
        "of the method's own": shown(record.extra),
    }
    return [(name, value) for name, value in rows.items() if value != UNKNOWN]


def config_rows(
    config: Mapping[str, Any], defaults: Mapping[str, Any] | None = None, where: str = ""
) -> Iterator[tuple[str, str, bool]]:
    """Yield (dotted key, value as on the command line, whether it differs from the schema's default).

    Method knobs never count as different: their defaults are in the method's module, which needs torch.
    """
    defaults = _defaults() if defaults is None else defaults
    for key, value in config.items():
        path = f"{where}.{key}" if where else str(key)
        default = defaults.get(key)
        if isinstance(value, Mapping) and value:
            yield from config_rows(value, default if isinstance(default, Mapping) else {}, path)
        else:
            yield path, shown(value), key in defaults and value != default


@cache
def _defaults() -> dict[str, Any]:
    return to_dict(Config())


def shown(value: Any) -> str:
    if type(value) in (str, int, float):
        return str(value)
    return UNKNOWN if value is None else _as_json(value)


def rank_rows(
    record: Record, ranks: Sequence[Mapping[str, Any]], profile: Mapping[str, Any] | None
) -> Markup:
    """Return table rows (layer, rank, full rank, ratio, bar) in execution order."""
    full, final = full_ranks(ranks), record.ranks or {}
    layers = layer_order(full, final, profile) if final else []
    return Markup("".join([_rank_row(layer, final.get(layer), full.get(layer)) for layer in layers]))


@lru_cache(maxsize=20_000)
def _rank_row(layer: str, rank: int | None, full: int | None) -> str:
    ratio = rank / full if rank and full else None
    cells = [count(rank) if rank else "dense", count(full), f"{ratio:.2f}" if ratio else UNKNOWN]
    numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    share = f'<td class="share" aria-hidden="true">{bar(ratio) if ratio else ""}</td>'
    return f'<tr><th scope="row">{escape(layer)}</th>{numbers}{share}</tr>'


def profile_rows(profile: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (row.name, str(row.layers), f"{row.full:.2f}", f"{row.low:.2f}", times(row.speedup),
         times(row.backward_speedup), count(row.intensity), "low rank" if row.factorize else "full rank")
        for row in stack_rows(profile)
    ]  # fmt: skip
