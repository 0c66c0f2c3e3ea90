import math
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cuttlefish.report.page.chart import (
    HEIGHT,
    MOST_POINTS,
    WIDTH,
    Series,
    line_chart,
    points,
    thinned,
    ticks,
)

numbers = st.floats(-1e9, 1e9)


@settings(deadline=None)
@given(numbers, numbers, st.booleans())
def test_ticks_are_round_few_and_enclose(a, b, whole):
    low, high = min(a, b), max(a, b)
    found = ticks(low, high, whole)
    step = found[1] - found[0]
    slack = 1e-6 * max(step, abs(low), abs(high))
    assert found[0] <= low + slack and found[-1] >= high - slack and 2 <= len(found) <= 9
    assert not whole or step > 0.999


@pytest.mark.parametrize(
    "low, high, expected",
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0.38, 2.02, [0, 0.5, 1, 1.5, 2, 2.5]), (5, 5, [5, 6])],
)
def test_ticks_of_known_ranges(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_a_line_s_points_lie_where_the_axes_say():
    svg = ElementTree.fromstring(
        line_chart("T", [Series("s", [(0, 0), (10, 1)], "low", "s")], "epoch", (5, "E = 5"))
    )
    line = next(element for element in svg if element.tag == "polyline")
    first, last = (tuple(map(float, pair.split(","))) for pair in line.get("points").split())
    labels = {element.text: element for element in svg if element.tag == "text"}
    assert first[1] == pytest.approx(float(labels["0"].get("y")) - 4, abs=20) and first[0] == pytest.approx(
        50
    )
    assert last == pytest.approx((WIDTH - 12, 30))
    mark = next(element for element in svg if element.get("class") == "mark")
    assert mark.get("d").startswith(f"M{(50 + WIDTH - 12) / 2:.1f} ")
    assert "E = 5" in labels and svg.get("aria-label") == "T: s from 0 to 1"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=30))
@example([(0.0, 0.0), (1.0, 2.2e-313)])
def test_nothing_is_drawn_outside(drawn):
    svg = ElementTree.fromstring(line_chart("T", [Series("s", drawn, "low")], "x"))
    for element in svg:
        pairs = [tuple(map(float, pair.split(","))) for pair in (element.get("points") or "").split()]
        assert all(-1 <= x <= WIDTH + 1 and -1 <= y <= HEIGHT + 1 for x, y in pairs)


def test_what_is_no_number_is_not_drawn():
    rows = [
        {"x": 1, "y": 2.0},
        {"x": True, "y": 1},
        {"x": 2, "y": None},
        {"x": 3, "y": math.nan},
        {"x": 4, "y": math.inf},
        {"x": "5", "y": 5},
        {},
    ]
    assert points(rows, "x", "y") == [(1, 2.0)]
    assert line_chart("T", [Series("s", [], "low")], "x") == ""


def test_many_points_are_thinned_and_the_ends_stay():
    many = [(float(index), 0.0) for index in range(10_000)]
    few = thinned(many)
    assert len(few) == MOST_POINTS and few[0] == many[0] and few[-1] == many[-1] and few == sorted(set(few))
    assert thinned(many[:7]) == many[:7]
