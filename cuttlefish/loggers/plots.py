"""Draw the plots of a run at its end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cuttlefish.loggers.base import Logger, RunInfo
from cuttlefish.record.fields import Record
from cuttlefish.record.folder import PLOTS, read_epochs, read_profile, read_ranks
from cuttlefish.record.record import value_of


class Plots(Logger):
    """Logger that draws rank_curves, rank_ratios, stack_profile and training, if available, in `plots/`."""

    def start(self, run: RunInfo) -> None:
        self.folder = Path(run.folder)

    def finish(self, record: Record) -> None:
        draw_run(self.folder, record)


def draw_run(folder: str | Path, record: Record) -> list[Path]:
    """Draw all plots for which the run folder and the record have data, and return the written paths."""
    # matplotlib takes a second to import
    from cuttlefish.display.style import save_figure, styled

    folder, written = Path(folder), []
    with styled():
        for name, draw in _drawable(folder, record).items():
            written += save_figure(draw(), folder / PLOTS, name)
    return written


def _drawable(folder: Path, record: Record) -> dict[str, Callable[[], Any]]:
    from cuttlefish.display import plots as run_plots

    epochs, ranks, profile = read_epochs(folder), read_ranks(folder), read_profile(folder)
    subject = run_plots.subject_of(record)
    drawings: dict[str, Callable[[], Any]] = {}
    if ranks:
        metric = value_of(record, "config.method.metric")
        drawings["rank_curves"] = lambda: run_plots.rank_curves(ranks, record.switch_epoch, subject, metric)
    if ranks and record.ranks:
        drawings["rank_ratios"] = lambda: run_plots.rank_ratios(record, ranks, profile, subject)
    if profile and profile["stacks"]:
        drawings["stack_profile"] = lambda: run_plots.stack_profile(profile, subject)
    if epochs:
        drawings["training"] = lambda: run_plots.training_curves(epochs, record, subject)
    return drawings
