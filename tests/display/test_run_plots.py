import io
import json
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from cuttlefish.display import plots as run_plots
from cuttlefish.display import style
from cuttlefish.display.rank_history import rank_histories
from cuttlefish.loggers.base import Loggers
from cuttlefish.loggers.plots import Plots, draw_run
from cuttlefish.record.atomic import append_line
from cuttlefish.record.fields import Record

NAMES = ("rank_curves", "rank_ratios", "stack_profile", "training")


def rank_rows(made_up, epochs):
    return [row for epoch in epochs for row in made_up.rank_rows(epoch)]


@pytest.fixture(scope="module")
def drawn(made_up, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    record = made_up.write_run(folder)
    with Loggers([Plots()]) as loggers:
        loggers.start(made_up.run_info(folder))
        loggers.finish(record)
        assert len(loggers) == 1
    return folder / "plots"


def test_all_figures_come_as_png_and_svg_alone(drawn):
    wanted = {f"{name}.{suffix}" for name in NAMES for suffix in ("png", "svg")}
    assert {path.name for path in drawn.iterdir()} == wanted


@pytest.mark.parametrize("name", NAMES)
def test_pngs_are_whole_at_150_dpi_and_not_blank(drawn, name):
    with Image.open(drawn / f"{name}.png") as image:
        image.load()
        assert image.width == round(7.2 * 150)
        assert image.info["dpi"][0] == pytest.approx(150, abs=0.5)
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50


@pytest.mark.parametrize("name, marked", [("rank_curves", 1), ("training", 2), ("stack_profile", 0)])
def test_svgs_parse_and_mark_the_switch(drawn, name, marked):
    groups = [element.get("id") for element in ElementTree.parse(drawn / f"{name}.svg").iter()]
    assert sum(group == "switch" for group in groups) == marked


def test_the_same_figure_gives_the_same_bytes(made_up, tmp_path):
    once, again = tmp_path / "once", tmp_path / "again"
    for folder in (once, again):
        with style.styled():
            style.save_figure(run_plots.stack_profile(made_up.profile(), "a run"), folder, "profile")
    for name in ("profile.png", "profile.svg"):
        assert (once / name).read_bytes() == (again / name).read_bytes()


def switches(axes):
    """Where an axes marks the switch."""
    return [line.get_xdata()[0] for line in axes.lines if line.get_gid() == "switch"]


def test_rank_curves_show_the_ranks_and_the_switch_epoch(made_up):
    rows = rank_rows(made_up, range(made_up.E + 1))
    with style.styled():
        (axes,) = run_plots.rank_curves(rows, made_up.E).axes
        assert axes.get_ylabel() == "stable rank / its initial value"
        (of_entropy,) = run_plots.rank_curves(rows, None, metric="entropy").axes
        assert of_entropy.get_ylabel().startswith("effective rank")
    curves = {tuple(line.get_ydata()) for line in axes.lines if line.get_gid() is None}
    assert curves == {tuple(history.ratios) for history in rank_histories(rows)}
    assert switches(axes) == [made_up.E]
    assert {"switch, E = 5"} < {text.get_text() for text in axes.texts}


def test_training_curves_skip_epochs_without_evaluation(made_up):
    rows = [made_up.epoch_row(epoch) for epoch in range(1, 9)]
    for row in rows[::2]:
        row["test_loss"] = row["test_accuracy"] = None
    upper, lower = run_plots.training_curves(rows, made_up.record()).axes
    test_line = next(line for line in lower.lines if line.get_label() == "test")
    assert list(test_line.get_xdata()) == [2, 4, 6, 8]
    assert switches(upper) == switches(lower) == [5.5]


def test_a_full_rank_run_has_only_its_curves_and_no_mark(made_up, tmp_path):
    for epoch in range(1, 4):
        append_line(tmp_path / "epochs.jsonl", json.dumps(made_up.epoch_row(epoch)))
    paths = draw_run(tmp_path, made_up.full_rank_record())
    assert sorted(path.name for path in paths) == ["training.png", "training.svg"]
    assert 'id="switch"' not in (tmp_path / "plots" / "training.svg").read_text()


@pytest.mark.parametrize("layers, epochs", [(1, 1), (40, 2)])
def test_unusual_sizes_are_drawn_too(made_up, layers, epochs):
    names = [f"blocks.{index}.fc" for index in range(layers)]
    rows = [
        dict(epoch=e, layer=name, stable_rank=9.0 - e, scaled_rank=9 - e, full_rank=9)
        for e in range(epochs)
        for name in names
    ]
    profile = made_up.profile()
    figures = [
        run_plots.rank_curves(rows, None),
        run_plots.rank_ratios(Record(ranks={name: 3 for name in names[:1]}), rows, None),
        run_plots.stack_profile(profile | {"stacks": profile["stacks"][:1], "source": "cost model"}),
        run_plots.training_curves([made_up.epoch_row(1)], made_up.full_rank_record()),
    ]
    for figure in figures:
        assert isinstance(figure, Figure)
        figure.savefig(io.BytesIO(), format="png", dpi=30)


def test_ranks_of_a_fork_are_ratios_to_full_rank(made_up):
    forked = rank_histories(rank_rows(made_up, range(3, 6)))
    whole = rank_histories(rank_rows(made_up, range(6)))
    for part, all_ in zip(forked, whole, strict=True):
        assert part.epochs == [3, 4, 5]
        assert part.ratios == pytest.approx(all_.ratios[3:], abs=1.01 / all_.full_rank)


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.floats(0.01, 0.5))
def test_spread_keeps_order_and_distance(values, gap):
    moved = style.spread(values, gap)
    order = sorted(range(len(values)), key=values.__getitem__)
    placed = [moved[index] for index in order]
    assert all(after - before >= gap - 1e-9 for before, after in zip(placed, placed[1:], strict=False))
    assert sum(moved) == pytest.approx(sum(values), abs=1e-6)  # least squares keeps the mean
    room = gap * (len(values) - 1)
    bounded = style.spread(values, gap, -0.1, 0.1 + room)
    assert all(-0.1 - 1e-9 <= value <= 0.1 + room + 1e-9 for value in bounded)
    in_order_of = [sorted(range(len(values)), key=found.__getitem__) for found in (bounded, moved)]
    assert in_order_of[0] == in_order_of[1]
    spaced = [values[index] for index in order]
    if all(after - before >= gap for before, after in zip(spaced, spaced[1:], strict=False)):
        assert moved == pytest.approx(values)


@pytest.mark.parametrize(
    "scale, config, ending",
    [
        ("reduced", {"model": {"width": 16}}, "seed 0, reduced scale, width 16"),
        ("smoke", None, "seed 0, smoke scale"),
        ("paper", {"model": {"width": 64}}, "seed 0"),
    ],
)
def test_a_picture_says_what_scale_and_width_it_is_of(tmp_path, monkeypatch, made_up, scale, config, ending):
    drawn = []

    def training_curves(rows, record, title):
        drawn.append(title)
        return style.new_figure(1, 1)[0]

    monkeypatch.setattr(run_plots, "training_curves", training_curves)
    (tmp_path / "epochs.jsonl").write_text('{"epoch": 1}\n')
    draw_run(tmp_path, made_up.full_rank_record(seed=0, scale=scale, config=config))
    assert drawn[0].endswith(ending)
