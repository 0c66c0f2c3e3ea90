"""What a run's pictures show: loss, accuracy and ranks by epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from cuttlefish.display.rank_history import LayerHistory, rank_histories
from cuttlefish.report.page.chart import Series, line_chart, pairs, points

Rows = Sequence[dict[str, Any]]
RAMP = 8
"""Shades of the style sheet from the first layer to the last."""
SIDES = (("train", "full"), ("test", "low"))


def loss_chart(epochs: Rows, record: Mapping[str, Any]) -> Markup:
    return line_chart("Loss", _sides(epochs, "loss"), "epoch", _switch(record))


def accuracy_chart(epochs: Rows, record: Mapping[str, Any]) -> Markup:
    return line_chart("Accuracy in percent", _sides(epochs, "accuracy"), "epoch", _switch(record))


def rank_chart(ranks: Rows, record: Mapping[str, Any]) -> Markup:
    """Each layer's stable rank over its value at initialisation (paper, section 3.3), which is its scaled rank ratio."""
    histories = rank_histories(ranks)
    series = [_layer(history, index, len(histories)) for index, history in enumerate(histories)]
    return line_chart("Rank ratio", series, "epochs trained", _switch(record), floor_at_zero=True)


def _sides(epochs: Rows, what: str) -> list[Series]:
    return [
        Series(f"{side} {what}", points(epochs, "epoch", f"{side}_{what}"), look, f"{side}")
        for side, look in SIDES
    ]


def _layer(history: LayerHistory, index: int, layers: int) -> Series:
    shade = index * (RAMP - 1) // max(layers - 1, 1)
    legend = {0: "first layer", layers - 1: "last layer"}.get(index, "")
    return Series(history.layer, pairs(history.epochs, history.ratios), f"ramp{shade}", legend)


def _switch(record: Mapping[str, Any]) -> tuple[float, str] | None:
    epoch = record.get("switch_epoch")
    return (float(epoch), f"E = {epoch}") if epoch else None
