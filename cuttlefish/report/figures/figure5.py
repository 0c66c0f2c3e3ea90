"""Figure 5: the ranks that methods choose, layer by layer."""

from collections.abc import Sequence
from statistics import mean

from matplotlib.axes import Axes

from cuttlefish.display import style
from cuttlefish.display.rank_history import full_ranks
from cuttlefish.evidence.records import Evidence
from cuttlefish.planning.spec import EQUAL, PUBLISHED
from cuttlefish.record.folder import read_ranks
from cuttlefish.report.figures.base import Drawing, NoData, Sources, drawing, hardware_of, panels, seeds_of
from cuttlefish.report.figures.groups import Group, Network, groups_of, progress
from cuttlefish.report.figures.looks import mark_of, mean_ratio, name_layers


def draw(sources: Sources) -> list[Drawing]:
    """Draw a panel for each network with ranks from at least two methods."""
    rows = {one.row for one in sources.planned if one.table == "figure5"}
    found = [(network, _comparable(groups, rows)) for network, groups in groups_of(sources, "table1").items()]
    networks = [(network, groups) for network, groups in found if len({one.method for one in groups}) > 1]
    if not networks:
        raise NoData(f"no network has runs of two of the methods; {progress(sources, 'figure5')}")
    figure, grid = panels(len(networks), 3.5)
    for axes, (network, groups) in zip(grid, networks, strict=True):
        _panel(axes, groups, known_full_ranks(sources.runs, network))
        seeds = seeds_of(*(group.runs for group in groups))
        style.entitle(axes, sources.network(*network), f"{_kind(groups)}{seeds}")
    used = [run for _, groups in networks for group in groups for run in group.runs]
    caption = "Ranks that the methods choose for each layer."
    words = ["pale: full rank of each layer; a layer without a mark stayed dense", hardware_of(used)]
    return [drawing(sources, "figure5", figure, caption, words, used)]


def known_full_ranks(runs: Sequence[Evidence], network: Network) -> dict[str, int]:
    """Return layer -> full rank in execution order, from the run with most recorded layers."""
    own = [run for run in runs if (run.record.model, run.record.data) == network]
    return max((full_ranks(read_ranks(run.path.parent)) for run in own), key=len, default={})


def _comparable(groups: Sequence[Group], rows: set[str]) -> list[Group]:
    return [
        group for group in groups if group.plan.row in rows and all(run.record.ranks for run in group.runs)
    ]


def _kind(groups: Sequence[Group]) -> str:
    """Return `equal budget, ` if every row is of that kind."""
    shared = set.intersection(*(set(group.plan.kinds) for group in groups))
    return "".join(f"{kind}, " for kind in (EQUAL, PUBLISHED) if kind in shared)


def _panel(axes: Axes, groups: Sequence[Group], full: dict[str, int]) -> None:
    layers = list(full) or list(
        dict.fromkeys(layer for group in groups for layer in group.runs[0].record.ranks)
    )
    heights = [full.get(layer, 0) for layer in layers]
    axes.bar(range(len(layers)), heights, width=0.82, color=style.PALE, zorder=0)
    lowest = 4.0
    for index, group in enumerate(groups):
        ranks = [_mean_rank(group.runs, layer, full.get(layer)) for layer in layers]
        lowest = min([lowest, *(rank for rank in ranks if rank is not None)])
        look = mark_of(index + 1) | {"linewidth": 1.2, "markersize": 5, "label": group.plan.label}
        axes.plot(range(len(layers)), ranks, **look)
    name_layers(axes, layers)
    ticks = [2**power for power in range(max(full.values(), default=1).bit_length())]
    axes.set(ylabel="rank", yscale="log")
    axes.set_yticks(ticks, labels=map(str, ticks))
    axes.set_ylim(bottom=0.9 * lowest)
    axes.minorticks_off()
    axes.legend(loc="upper left", fontsize=8)


def _mean_rank(runs: Sequence[Evidence], layer: str, full: int | None) -> float | None:
    if full is None:
        ranks = [run.record.ranks[layer] for run in runs if layer in run.record.ranks]
        return mean(ranks) if ranks else None
    ratio = mean_ratio(runs, layer, full)
    return None if ratio is None else ratio * full
