"""Figure 2: the stable rank of every layer while a network trains at full rank."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean

from cuttlefish.display import style
from cuttlefish.display.plots import curves
from cuttlefish.display.rank_history import LayerHistory, rank_histories
from cuttlefish.evidence.records import Evidence
from cuttlefish.evidence.selection import setting_of
from cuttlefish.record.folder import read_ranks
from cuttlefish.report.figures.base import Drawing, NoData, Sources, drawing, hardware_of, panels, seeds_of


def draw(sources: Sources) -> list[Drawing]:
    """Draw a panel per network and data set: each layer's stable rank over its initial value."""
    found = [
        (runs, mean_histories([rank_histories(read_ranks(run.path.parent)) for run in runs]))
        for runs in tracked_runs(sources)
    ]
    tracked = [(runs, histories) for runs, histories in found if histories]
    if not tracked:
        raise NoData("no finished full-rank run has recorded its ranks (method.track_ranks=true)")
    figure, grid = panels(len(tracked), 3.9)
    for axes, (runs, histories) in zip(grid, tracked, strict=True):
        first = runs[0].record
        axes.set(ylabel="stable rank / its initial value")
        curves(axes, histories, marker=2.2)
        style.entitle(axes, sources.network(first.model, first.data), f"full rank, {seeds_of(runs)}")
    used = [run for runs, _ in tracked for run in runs]
    caption = "Stable rank of each layer while training at full rank."
    how = "stable rank over its value at initialisation, from first layer (dark) to last"
    return [drawing(sources, "figure2", figure, caption, [how, hardware_of(used)], used)]


def tracked_runs(sources: Sources) -> list[list[Evidence]]:
    """Return dense runs with rank rows: for each network and data set the setting with most seeds."""
    settings: dict[str, list[Evidence]] = defaultdict(list)
    for run in sources.runs:
        if (
            not run.record.ranks
            and run.record.params_nonzero == run.record.params_full
            and read_ranks(run.path.parent)
        ):
            settings[setting_of(run.record)].append(run)
    best: dict[tuple[str, str], list[Evidence]] = {}
    for runs in sorted(settings.values(), key=lambda runs: len({run.record.seed for run in runs})):
        best[runs[0].record.model, runs[0].record.data] = sorted(runs, key=lambda run: run.record.seed)
    return [best[network] for network in sorted(best)]


def mean_histories(histories: Sequence[Sequence[LayerHistory]]) -> list[LayerHistory]:
    """Return the mean over runs for each layer, for layers and epochs that all runs have."""
    runs = [{history.layer: history for history in own} for own in histories]
    means = [_mean([own[layer] for own in runs]) for layer in runs[0] if all(layer in own for own in runs)]
    return [history for history in means if history.epochs]


def _mean(own: Sequence[LayerHistory]) -> LayerHistory:
    shared = sorted(set.intersection(*(set(history.epochs) for history in own)))
    values = [dict(zip(history.epochs, history.ratios, strict=True)) for history in own]
    return LayerHistory(
        own[0].layer, own[0].full_rank, shared, [mean(value[epoch] for value in values) for epoch in shared]
    )
