"""Figure 4: forward time of each stack at full rank and at several rank ratios."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from matplotlib.axes import Axes

from cuttlefish.display import style
from cuttlefish.display.format import counted, times
from cuttlefish.evidence.benches import Bench
from cuttlefish.report.figures.base import Drawing, NoData, Sources, drawing, panels
from cuttlefish.report.figures.looks import HATCHES, ratio_colours, ratio_word


def draw(sources: Sources) -> list[Drawing]:
    """Draw one panel per model from its newest stack profile."""
    benches = newest_profiles(sources, "stacks")
    if not benches:
        raise NoData(
            "no stack profile (python -m scripts.profile_layers stacks --model resnet18 "
            f"--scale {sources.scale}, and vgg19)"
        )
    figure, grid = panels(len(benches), 2.7)
    for axes, bench in zip(grid, benches, strict=True):
        _panel(axes, bench)
        facts = bench.facts
        found = " or ".join(sorted({str(repeat["k"]) for repeat in facts["repeats"]}))
        setting = f"width {facts['width']}, batch {facts['batch']}: K = {found}"
        style.entitle(axes, sources.network(facts["model"]), setting)
    grid[0].legend(loc="upper right", fontsize=8, ncols=len(benches[0].facts["ratios"]) + 1)
    caption = "Forward time of each stack at full rank and at lower rank ratios."
    return [drawing(sources, "figure4", figure, caption, profile_words(benches), benches=benches)]


def newest_profiles(sources: Sources, profiled: str) -> list[Bench]:
    """Return the newest profile of each model, ordered by name."""
    found = {
        bench.facts["model"]: bench
        for bench in sources.benches
        if bench.what == "profile" and bench.facts.get("profiled") == profiled
    }
    return [found[model] for model in sorted(found)]


def profile_words(benches: Sequence[Bench]) -> list[str]:
    facts = [bench.facts for bench in benches]
    hardware = sorted({f"{bench.hardware} · {bench.facts['precision']}" for bench in benches})
    counts = sorted({len(fact["repeats"]) for fact in facts})
    words = [
        ", ".join(hardware),
        f"medians of {' and '.join(map(str, counts))} profiles of {facts[0]['zeta'] - 1} timed runs; "
        "bars: their range",
    ]
    return words + (["measured with uncommitted code"] if any(fact.get("dirty") for fact in facts) else [])


def _panel(axes: Axes, bench: Bench) -> None:
    ratios, colours = bench.facts["ratios"], ratio_colours(len(bench.facts["ratios"]))
    width = 0.84 / (len(ratios) + 1)
    for index, name in enumerate(["full rank", *map(ratio_word, ratios)]):
        series = [_times(row, index) for row in bench.rows]
        places = [place + (index - len(ratios) / 2) * width for place in range(len(series))]
        middle = [median(own) for own in series]
        ranges = [
            [m - min(own) for m, own in zip(middle, series, strict=True)],
            [max(own) - m for m, own in zip(middle, series, strict=True)],
        ]
        look = {"color": colours[index], "hatch": HATCHES[index % len(HATCHES)], "edgecolor": "white"}
        bars = {"yerr": ranges, "error_kw": {"elinewidth": 0.8, "ecolor": style.INK}}
        axes.bar(places, middle, width * 0.92, label=name, linewidth=0, **look, **bars)
    for place, row in enumerate(bench.rows):
        _speed_up(axes, place, row, bench.facts)
    names = [f"{row['stack']} ({counted(len(row['layers']), 'layer')})" for row in bench.rows]
    axes.set_xticks(range(len(names)), names)
    axes.set(ylabel="forward pass (ms)")
    axes.margins(y=0.2)
    axes.grid(visible=False, axis="x")


def _times(row: dict[str, Any], index: int) -> list[float]:
    return [1e3 * seconds for seconds in (row["full_s"] if index == 0 else row["low_s"][index - 1])]


def _speed_up(axes: Axes, place: int, row: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write the speed-up at the deciding ratio above the bars, in bold if it exceeds τ."""
    if facts["deciding_ratio"] not in facts["ratios"]:
        return
    low = row["low_s"][facts["ratios"].index(facts["deciding_ratio"])]
    ratio = median(row["full_s"]) / median(low)
    top = 1e3 * max(row["full_s"] + [seconds for own in row["low_s"] for seconds in own])
    words = f"{ratio_word(facts['deciding_ratio'])}: {times(ratio)}"
    weight = "bold" if ratio > facts["threshold"] else "normal"
    above = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center"}
    axes.annotate(words, (place, top), fontsize=8, fontweight=weight, **above)
