"""Small line charts as SVG, from numbers to text: fast enough for thousands of pages, coloured by the page's style sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any

from markupsafe import Markup, escape

WIDTH, HEIGHT = 480, 260
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 30, 38
MOST_POINTS = 240
"""More are not seen at this size; the first and the last always stay."""
NUMBERS, HUGE = (int, float), 1e15
"""What can be drawn: neither text, nor true and false, nor what is not finite."""


@dataclass(frozen=True)
class Series:
    """One line. look: its class in the style sheet. In the legend unless `legend` is empty."""

    name: str
    points: list[tuple[float, float]]
    look: str
    legend: str = ""


SMALLEST = 1e-300
"""A spread below it, whose inverse is no number any more, is drawn as none."""


@dataclass(frozen=True)
class Scale:
    """From a value to a place on the drawing: offset + factor · value."""

    low: float
    high: float
    start: float
    end: float

    @property
    def factor(self) -> float:
        return (self.end - self.start) / (self.high - self.low)

    @property
    def offset(self) -> float:
        return self.start - self.factor * self.low

    def __call__(self, value: float) -> str:
        return f"{self.offset + self.factor * value:.1f}"


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    mark: tuple[float, str] | None = None,
    floor_at_zero: bool = False,
) -> Markup:
    """An SVG picture; empty where no series has a point. mark: a vertical line with its words (the switch)."""
    series = [Series(one.name, thinned(one.points), one.look, one.legend) for one in series if one.points]
    if not series:
        return Markup("")
    x_ticks = ticks(*_range([x for one in series for x, _ in one.points]), whole=True)
    y_ticks = ticks(*_range([y for one in series for _, y in one.points] + [0.0] * floor_at_zero))
    x, y = (
        Scale(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT),
        Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP),
    )
    parts = [_grid(x, y, x_ticks, y_ticks, x_label), *(_line(one, x, y) for one in series), _legend(series)]
    parts += [_mark(mark, x)] if mark and x.low <= mark[0] <= x.high else []
    name = escape(f"{title}: {_in_words(series)}")
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{"".join(parts)}</svg>'
    )


def points(rows: Sequence[dict[str, Any]], x: str, y: str) -> list[tuple[float, float]]:
    """The pairs of those rows in which both are numbers."""
    return pairs([row.get(x) for row in rows], [row.get(y) for row in rows])


def pairs(xs: Sequence[Any], ys: Sequence[Any]) -> list[tuple[float, float]]:
    return [
        (x, y)
        for x, y in zip(xs, ys, strict=True)
        if type(x) in NUMBERS and type(y) in NUMBERS and -HUGE < x < HUGE and -HUGE < y < HUGE
    ]


def thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(points) <= MOST_POINTS:
        return points
    step = (len(points) - 1) / (MOST_POINTS - 1)
    return [points[round(index * step)] for index in range(MOST_POINTS)]


def ticks(low: float, high: float, whole: bool = False, about: int = 5) -> list[float]:
    """Round numbers that enclose low and high, 1, 2 or 5 times a power of ten apart."""
    rough = max((high - low) / about, 1.0 if whole else 0.0) or abs(high) / about
    rough = rough if rough > SMALLEST else 1.0
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _line(one: Series, x: Scale, y: Scale) -> str:
    if len(one.points) == 1:
        at = one.points[0]
        return f'<circle class="{one.look}" cx="{x(at[0])}" cy="{y(at[1])}" r="3"><title>{escape(one.name)}</title></circle>'
    left, across, base, up = x.offset, x.factor, y.offset, y.factor
    places = [place for a, b in one.points for place in (left + across * a, base + up * b)]
    path = " ".join(["%.1f,%.1f"] * len(one.points)) % tuple(
        places
    )  # at once: a third of the time of one by one
    return f'<polyline class="line {one.look}" points="{path}"><title>{escape(one.name)}</title></polyline>'


def _grid(x: Scale, y: Scale, x_ticks: list[float], y_ticks: list[float], x_label: str) -> str:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    lines = [f'<path class="grid" d="M{LEFT} {y(tick)}H{right}"/>' for tick in y_ticks]
    labels = [
        f'<text class="end" x="{LEFT - 6}" y="{float(y(tick)) + 4:.1f}">{tick:g}</text>' for tick in y_ticks
    ]
    labels += [f'<text class="middle" x="{x(tick)}" y="{bottom + 16}">{tick:g}</text>' for tick in x_ticks]
    return "".join(
        [
            *lines,
            *labels,
            f'<text class="middle" x="{(LEFT + right) / 2}" y="{HEIGHT - 6}">{escape(x_label)}</text>',
        ]
    )


def _legend(series: Sequence[Series]) -> str:
    shown, at, parts = [one for one in series if one.legend], LEFT, []
    for one in shown:
        parts.append(
            f'<path class="line {one.look}" d="M{at} 14h18"/><text x="{at + 23}" y="18">{escape(one.legend)}</text>'
        )
        at += 40 + 7 * len(one.legend)
    return "".join(parts)


def _mark(mark: tuple[float, str], x: Scale) -> str:
    at = x(mark[0])
    side = "end" if float(at) > WIDTH * 0.7 else "start"
    shift = -5 if side == "end" else 5
    text = f'<text class="{side}" x="{float(at) + shift:.1f}" y="{TOP + 12}">{escape(mark[1])}</text>'
    return f'<path class="mark" d="M{at} {TOP}V{HEIGHT - BOTTOM}"/>{text}'


def _in_words(series: Sequence[Series]) -> str:
    told = [f"{one.name} from {one.points[0][1]:.4g} to {one.points[-1][1]:.4g}" for one in series[:4]]
    return "; ".join(told) + (f"; {len(series) - 4} more" if len(series) > 4 else "")
