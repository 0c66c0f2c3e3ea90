"""Figure 6: forward time of single layers at several rank ratios."""

from statistics import mean, median
from typing import Any

from matplotlib.axes import Axes

from cuttlefish.display import style
from cuttlefish.display.format import times
from cuttlefish.evidence.benches import Bench
from cuttlefish.report.figures.base import Drawing, NoData, Sources, drawing, panels
from cuttlefish.report.figures.figure4 import newest_profiles, profile_words
from cuttlefish.report.figures.looks import ratio_colours, ratio_word

KINDS = {"conv": "convolutions", "attn": "attention", "mlp": "MLP", "fc": "linear layers"}
FEW = 3
"""Minimum number of parts for a panel; excludes a stem or a head beside a transformer's blocks."""


def draw(sources: Sources) -> list[Drawing]:
    """Draw a panel per model and kind of layer, one line per ratio, with the mean speed-up in the legend."""
    shown = [(bench, kind) for bench in newest_profiles(sources, "layers") for kind in _kinds(bench)]
    if not shown:
        words = f"layers --model resnet50 --scale {sources.scale}, and deit_small_patch16_224"
        raise NoData(f"no layer profile (python -m scripts.profile_layers {words})")
    figure, grid = panels(len(shown), 2.7)
    for axes, (bench, kind) in zip(grid, shown, strict=True):
        _panel(axes, bench, kind)
        name = f"{sources.network(bench.facts['model'])}, {KINDS.get(kind, kind)}"
        style.entitle(axes, name, f"batch {bench.facts['batch']}")
    benches = list({bench.name: bench for bench, _ in shown}.values())
    words = [
        word.replace("; bars: their range", "; in brackets the mean speed-up over the layers")
        for word in profile_words(benches)
    ]
    words += _alone(sources, benches)
    words += [_chooser(sources, bench) for bench in benches if bench.facts.get("chosen_by")]
    caption = "Forward time of single layers at full rank and at lower rank ratios."
    return [drawing(sources, "figure6", figure, caption, words, benches=benches)]


def _kinds(bench: Bench) -> list[str]:
    kinds = [row["kind"] for row in bench.rows]
    return [kind for kind in dict.fromkeys(kinds) if kinds.count(kind) >= FEW]


def _alone(sources: Sources, benches: list[Bench]) -> list[str]:
    """Describe the parts without a panel: `fc of ResNet-50 at 1/4: 0.90×`."""
    words = []
    for bench in benches:
        ratios, deciding = bench.facts["ratios"], bench.facts["deciding_ratio"]
        place = ratios.index(deciding) if deciding in ratios else 0
        where = f"of {sources.network(bench.facts['model'])} at {ratio_word(ratios[place])}"
        rows = [row for row in bench.rows if row["kind"] not in _kinds(bench)]
        words += [f"{row['layer']} {where}: {times(_speed_up(row, place))}" for row in rows]
    return words


def _chooser(sources: Sources, bench: Bench) -> str:
    """Name the run whose ratios are the chosen ones."""
    run = bench.facts["chosen_by"]
    whose = sources.network(run["model"], run["data"])
    return f"{sources.network(bench.facts['model'])} as chosen: the ratios of run {run['run_key']}, {whose}"


def _speed_up(row: dict[str, Any], place: int) -> float:
    return median(row["full_s"]) / median(row["low_s"][place])


def _panel(axes: Axes, bench: Bench, kind: str) -> None:
    rows = bench.find(kind=kind)
    ratios = bench.facts["ratios"]
    for index, colour in enumerate(ratio_colours(len(ratios))):
        series = [1e3 * median(row["full_s"] if index == 0 else row["low_s"][index - 1]) for row in rows]
        label = "full rank"
        if index > 0:
            faster = mean(_speed_up(row, index - 1) for row in rows)
            label = f"{ratio_word(ratios[index - 1])} ({times(faster)})"
        look = {"color": colour, "marker": "os^Dv"[index % 5], "markersize": 3.5, "linewidth": 1.2}
        axes.plot(range(1, len(rows) + 1), series, label=label, **look)
    _chosen(axes, rows)
    part = "layer" if kind in ("conv", "fc") else "block"
    axes.set(xlabel=f"{part}, in order of execution", ylabel="forward pass (ms)", ylim=(0, None))
    axes.set_ylim(0, 1.28 * axes.get_ylim()[1])  # room for the legend
    axes.set_xlim(0.4, len(rows) + 0.6)
    axes.legend(loc="upper right", fontsize=8, ncols=len(ratios) + 1)


def _chosen(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Mark the layers that a run gave a ratio of their own."""
    own = {place: row for place, row in enumerate(rows, 1) if row.get("chosen_s")}
    if own:
        faster = mean(median(row["full_s"]) / median(row["chosen_s"]) for row in own.values())
        series = [1e3 * median(row["chosen_s"]) for row in own.values()]
        look = {"color": style.ACCENT, "marker": "*", "markersize": 6, "linewidth": 0}
        axes.plot(list(own), series, label=f"as chosen ({times(faster)})", **look)
