"""Figure 3: the rank at which each layer settles, as a share of its full rank."""

from statistics import mean

from matplotlib.axes import Axes

from cuttlefish.display import style
from cuttlefish.display.rank_history import rank_histories
from cuttlefish.evidence.records import Evidence
from cuttlefish.record.folder import read_ranks
from cuttlefish.report.figures.base import Drawing, NoData, Sources, drawing, hardware_of, panels, seeds_of
from cuttlefish.report.figures.figure2 import tracked_runs
from cuttlefish.report.figures.groups import Group, groups_of
from cuttlefish.report.figures.looks import mean_ratio, name_layers


def draw(sources: Sources) -> list[Drawing]:
    """Draw a panel per network: the settled ratio of every layer, and the ranks found at E."""
    tracked = tracked_runs(sources)
    if not tracked:
        raise NoData("no finished full-rank run has recorded its ranks (method.track_ranks=true)")
    figure, grid = panels(len(tracked), 3.3)
    used = [run for runs in tracked for run in runs]
    for axes, runs in zip(grid, tracked, strict=True):
        network = runs[0].record.model, runs[0].record.data
        groups = groups_of(sources, "figure3").get(network, [])
        found = [group for group in groups if all(run.record.ranks for run in group.runs)]
        _panel(axes, runs, found)
        style.entitle(axes, sources.network(*network))
        used += [run for group in found for run in group.runs]
    how = "ratio of a dense layer: its stable rank over the value at initialisation, at the end of training"
    caption = "Rank ratio of each layer once it has settled."
    return [drawing(sources, "figure3", figure, caption, [how, hardware_of(used)], used)]


def _panel(axes: Axes, runs: list[Evidence], found: list[Group]) -> None:
    histories = [
        {history.layer: history for history in rank_histories(read_ranks(run.path.parent))} for run in runs
    ]
    layers = [layer for layer in histories[0] if all(layer in own for own in histories)]
    settled = [mean(own[layer].ratios[-1] for own in histories) for layer in layers]
    axes.vlines(range(len(layers)), 0, settled, color=style.GRID, linewidth=5)
    label = f"settled at full rank, {seeds_of(runs)}"
    axes.plot(range(len(layers)), settled, "o", color=style.INK, markersize=5, label=label)
    for group, shape in zip(found, "Ds^v" * len(found), strict=False):
        ratios = [mean_ratio(group.runs, layer, histories[0][layer].full_rank) for layer in layers]
        places = zip(
            *[(place, ratio) for place, ratio in enumerate(ratios) if ratio is not None], strict=True
        )
        look = {"color": style.LOW, "markerfacecolor": "none", "markersize": 6, "markeredgewidth": 1.4}
        axes.plot(*places, shape, label=_label(group), **look)
    name_layers(axes, layers)
    axes.set(ylabel="rank / full rank", ylim=(0, 1.04))
    axes.legend(loc="upper right", fontsize=8)


def _label(group: Group) -> str:
    epochs = [run.record.switch_epoch for run in group.runs if run.record.switch_epoch is not None]
    return f"{group.plan.label}{f', E = {mean(epochs):.3g}' if epochs else ''}, {seeds_of(group.runs)}"
