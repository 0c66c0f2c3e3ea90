"""Draws the run's figures when it is over."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cuttlefish.loggers.base import Logger, RunInfo
from cuttlefish.record.fields import Record
from cuttlefish.record.folder import PLOTS, read_epochs, read_profile, read_ranks


class Plots(Logger):
    """`plots/*.png` and `*.svg`: rank_curves, rank_ratios, stack_profile, training, as far as the run has them."""

    def start(self, run: RunInfo) -> None:
        self.folder = Path(run.folder)

    def finish(self, record: Record) -> None:
        draw_run(self.folder, record)


def draw_run(folder: str | Path, record: Record) -> list[Path]:
    """Draw what the run folder has data for, from its files and its record; the paths written."""
    from cuttlefish.display.style import (
        save_figure,
        styled,
    )  # matplotlib takes a second to import and only this needs it

    folder, written = Path(folder), []
    with styled():
        for name, draw in _drawable(folder, record).items():
            written += save_figure(draw(), folder / PLOTS, name)
    return written


def _drawable(folder: Path, record: Record) -> dict[str, Callable[[], Any]]:
    from cuttlefish.display import plots as run_plots

    epochs, ranks, profile = read_epochs(folder), read_ranks(folder), read_profile(folder)
    subject = run_plots.subject_of(record)
    drawings = {
        "rank_curves": ranks and (lambda: run_plots.rank_curves(ranks, record.switch_epoch, subject)),
        "rank_ratios": ranks
        and record.ranks
        and (lambda: run_plots.rank_ratios(record, ranks, profile, subject)),
        "stack_profile": profile
        and profile["stacks"]
        and (lambda: run_plots.stack_profile(profile, subject)),
        "training": epochs and (lambda: run_plots.training_curves(epochs, record, subject)),
    }
    return {name: draw for name, draw in drawings.items() if draw}
