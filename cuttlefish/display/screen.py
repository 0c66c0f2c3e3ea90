"""The tables of a summary screen: stack profile, ranks of the layers, facts of the run."""

from collections.abc import Iterable, Mapping
from statistics import mean
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from cuttlefish.display.format import (
    UNKNOWN,
    bar,
    count,
    duration,
    memory,
    named,
    number,
    one_line,
    percent,
    ratio_of,
    short_count,
    times,
)
from cuttlefish.display.rank_history import full_ranks
from cuttlefish.display.stack_rows import stack_rows, unit_of
from cuttlefish.record.fields import Record
from cuttlefish.record.record import value_of

MOST_LAYERS = 20
REASONS = {
    "settled": "every rank settled",
    "settled by relaxation": "every rank settled, the last ones by the relaxed threshold",
    "at the minimum E": "every rank had settled at the earliest epoch allowed",
    "at the maximum E": "not every rank had settled by the latest epoch allowed",
    "fixed": "fixed beforehand",
    "never": "the ranks did not settle",
    "declined": "no layer would get faster or smaller (kept_dense in record.json says why)",
}
"""Full texts for a method's reasons to switch."""


def plain_table(title: str, *columns: tuple[str, str]) -> Table:
    """Create a table in the common style; columns are (heading, justification)."""
    style = {"title_justify": "left", "title_style": "bold", "box": box.SIMPLE_HEAD, "show_edge": False}
    table = Table(title=Text(one_line(title)), padding=(0, 1, 0, 0), pad_edge=False, **style)
    for heading, justify in columns:
        table.add_column(heading, justify=justify, no_wrap=True)
    return table


def cells(*words: str) -> list[Text]:
    """Return cells that rich prints unchanged: no markup, no escape codes."""
    return [Text(one_line(word)) for word in words]


def profile_table(profile: Mapping[str, Any]) -> Table:
    """Return one row per stack: forward time at full rank and at ratio α, speed-ups, intensity, decision."""
    settings = f"α = {profile['ratio']:g}, τ = {profile['threshold']:g}"
    title = f"Stack profile: {settings}, {profile.get('source', 'timed')}, K = {profile['k']}"
    sides = ("full ms", "low ms") if unit_of(profile) == "ms" else ("full GF", "low GF")
    right = [(heading, "right") for heading in (*sides, "fwd", "bwd", "intens.")]
    table = plain_table(title, ("stack", "left"), *right, ("rank", "left"))
    for row in stack_rows(profile):
        speedups = times(row.speedup), times(row.backward_speedup)
        numbers = [f"{row.full:.2f}", f"{row.low:.2f}", *speedups, count(row.intensity)]
        words = cells(f"{row.name} ({row.layers})", *numbers, "low" if row.factorize else "full")
        table.add_row(*words, style=None if row.factorize else "dim")
    return table


def rank_table(
    record: Record, profile: Mapping[str, Any] | None, rank_rows: Iterable[Mapping[str, Any]]
) -> Table | None:
    """Return one row per layer, or per group of layers if there are many; None without ranks."""
    full, ranks = full_ranks(rank_rows), record.ranks or {}
    if not full or not ranks:
        return None
    table = plain_table("Ranks", ("layer", "left"), ("rank / full", "right"), ("ratio", "left"))
    for name, layers in _groups(layer_order(full, ranks, profile)):
        table.add_row(*cells(*_rank_cells(name, layers, full, ranks)))
    return table


def facts_table(record: Record) -> Table:
    """Return switch, size, work, accuracy and times of one run."""
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in facts(record).items():
        if value != UNKNOWN:
            table.add_row(*cells(name, value))
    return table


def facts(record: Record) -> dict[str, str]:
    error = (record.error or "").strip().splitlines()
    return {
        "error": error[-1] if error else UNKNOWN,
        "switch": switch_words(record),
        "parameters": shrinkage(record.params_full, record.params_total, "smaller", count),
        "nonzero": _zeros(record),
        "stored": _bits(record),
        "MACs": shrinkage(record.macs_full, record.macs_final, "fewer", short_count),
        "gradients": _gradients(record),
        **_scores(record),
        "time": named({"compute": duration(record.compute_seconds), "wall": duration(record.wall_seconds)}),
        "by part": named({part: duration(value) for part, value in (record.seconds or {}).items()})
        or UNKNOWN,
        "peak memory": memory(record.peak_memory_bytes),
        "hardware": f"{record.device or UNKNOWN}, {record.precision or UNKNOWN}",
    }


def switch_words(record: Record) -> str:
    """Describe E, the number of full-rank epochs, and why the switch came then or never."""
    epoch, reason = record.switch_epoch, record.switch_reason
    why = f": {REASONS.get(reason, reason)}" if reason else ""
    within = f", after step {record.switch_step}" if value_of(record, "config.method.interval") else ""
    if epoch is None:
        return f"full rank throughout{why}"
    return f"E = {epoch} of {record.epochs_trained or record.epochs}{within}{why}{_on_floor(record)}"


def _on_floor(record: Record) -> str:
    """Say how many ranks the floor decided, not the stable rank; nothing where there is no floor."""
    if record.on_floor is None:
        return ""
    return f"; {len(record.on_floor)} of {len(record.ranks or {})} ranks on their floor"


def shrinkage(full: float | None, now: float | None, word: str, show: Any) -> str:
    """Return `702,618 → 189,112 (3.72× smaller)`."""
    if full is None or now is None or full == now:
        return show(now if now is not None else full)
    return f"{show(full)} → {show(now)} ({times(ratio_of(full, now))} {word})"


def _gradients(record: Record) -> str:
    """Describe what processes all-reduce in a step, where the switch has made it less."""
    full, final = record.gradient_bytes_full, record.gradient_bytes_final
    if full is None or final is None or full == final:
        return UNKNOWN
    return f"{shrinkage(full, final, 'fewer', memory)} to all-reduce in a step"


def _zeros(record: Record) -> str:
    """Describe the zeros left by masks; a few accidental zeros are not shown."""
    total, nonzero = record.params_total, record.params_nonzero
    if total is None or nonzero is None or nonzero >= 0.99 * total:
        return UNKNOWN
    return f"{shrinkage(total, nonzero, 'fewer', count)}; zeros are computed with all the same"


def _bits(record: Record) -> str:
    """Describe the stored bits of a model whose numbers need fewer than 32 bits each."""
    nonzero, bits = record.params_nonzero, record.params_stored_bits
    if nonzero is None or bits is None or bits >= 0.99 * 32 * nonzero:
        return UNKNOWN
    size = memory(bits / 8) if bits >= 2**23 else f"{bits / 8192:.0f} KiB"
    return f"{size}, {bits / nonzero:.3g} bits a parameter"


def layer_order(
    full: Mapping[str, int], ranks: Mapping[str, int], profile: Mapping[str, Any] | None
) -> list[str]:
    profiled = [layer for stack in (profile or {}).get("stacks", []) for layer in stack["layers"]]
    return list(dict.fromkeys([*profiled, *full, *ranks]))


def _groups(layers: list[str]) -> list[tuple[str, list[str]]]:
    """Group many layers by the first two parts of their names, without the middle ones."""
    if len(layers) <= MOST_LAYERS:
        return [(layer, [layer]) for layer in layers]
    groups: dict[str, list[str]] = {}
    for layer in layers:
        groups.setdefault(".".join(layer.split(".")[:2]), []).append(layer)
    rows = [(f"{name} ({len(own)})", own) for name, own in groups.items()]
    half = MOST_LAYERS // 2
    if len(rows) > MOST_LAYERS:
        left_out = [layer for _, own in rows[half:-half] for layer in own]
        rows[half:-half] = [(f"… {len(left_out)} layers", left_out)]
    return rows


def _rank_cells(
    name: str, layers: list[str], full: Mapping[str, int], ranks: Mapping[str, int]
) -> tuple[str, str, str]:
    low = [layer for layer in layers if layer in ranks and layer in full]
    if not low:
        return name, "dense", ""
    ratio = mean(ranks[layer] / full[layer] for layer in low)
    rank, of = _range([ranks[layer] for layer in low]), _range([full[layer] for layer in low])
    return name, f"{rank} / {of}", f"{bar(ratio, 8)} {ratio:.2f}"


def _range(values: list[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)}–{max(values)}"


def _scores(record: Record) -> dict[str, str]:
    """Return the headline metric, of the last and of the best epoch, and the other metrics."""
    show = percent if record.headline == "accuracy" else number
    scores = named({"final": show(record.score), "best": show(record.score_best)})
    others = {
        name: number(value) for name, value in (record.metrics or {}).items() if name != record.headline
    }
    return {record.headline: scores or UNKNOWN, "metrics": named(others) or UNKNOWN}
