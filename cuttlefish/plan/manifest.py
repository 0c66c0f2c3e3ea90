"""The order of value: results/campaign.yaml, expanded to runs."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from cuttlefish.config.identity import NOT_IN_KEY
from cuttlefish.config.suggest import choose_from
from cuttlefish.config.validate import convert
from cuttlefish.errors import CuttlefishError
from cuttlefish.plan.planned_run import PlannedRun
from cuttlefish.plan.runs import planned_runs
from cuttlefish.plan.spec import Spec, read_mapping


@dataclass(frozen=True)
class Block:
    """rows × models × data × seeds of a table, seeds outermost."""

    table: str
    rows: list[str]
    models: list[str]
    data: list[str]
    seeds: list[int]


@dataclass(frozen=True)
class Order:
    """What one scale runs. words: added to each command line; none of them may change a run key."""

    blocks: list[Block]
    words: list[str] = field(default_factory=list)


def read_order(path: Path, scale: str) -> Order:
    """Raises CuttlefishError if the file or its scale is not there, or a word would change what is run."""
    scales = read_mapping(path)
    if scale not in scales:
        raise CuttlefishError(f"{path.name} has no scale {scale}{choose_from(scale, list(scales))}")
    order = convert(scales[scale], Order, f"{path.name}: {scale}")
    for word in order.words:
        if word.partition("=")[0] not in NOT_IN_KEY:
            raise CuttlefishError(f"{path.name}: {word} would make other runs than those of the tables")
    return order


def ordered_runs(order: Order, spec: Spec, scale: str, root: Path) -> list[PlannedRun]:
    """Every run once, in order of value. Raises CuttlefishError if a block names what no table has."""
    found: dict[str, PlannedRun] = {}
    for block in order.blocks:
        runs = {_place(run): run for run in planned_runs(spec, [block.table], scale, block.seeds, root)}
        for place in _places(block):
            these = [run for key, run in runs.items() if key[:4] == place]
            if not these:
                raise CuttlefishError(
                    f"the campaign's order names {' '.join(map(str, place))} of {block.table}, which is no run at scale {scale}"
                )
            for run in these:
                found.setdefault(run.run_key, run)
    return [replace(run, words=(*run.words, *order.words)) for run in found.values()]


def _places(block: Block) -> Iterator[tuple[int, str, str, str]]:
    for seed in block.seeds:
        for data in block.data:
            for model in block.models:
                for row in block.rows:
                    yield seed, data, model, row


def _place(run: PlannedRun) -> tuple[object, ...]:
    return run.seed, run.data, run.model, run.row, run.point
