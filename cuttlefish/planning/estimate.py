"""Estimate device hours of cells of the paper's tables from measured steps: full rank against Cuttlefish.

A bench `models` has seconds of a training step for each network, dense and at the ranks of preset=reference,
on one device at the recipe's batch of that device. Only training steps are counted.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from cuttlefish.config.schema import Config
from cuttlefish.evidence.benches import Bench
from cuttlefish.planning.points import Point, points
from cuttlefish.planning.spec import Spec
from cuttlefish.record.fields import Record
from cuttlefish.tasks.sets.folder import IMAGENET
from cuttlefish.tasks.text.glue import TASKS

SCALE, ROW = "paper", "cuttlefish_reference"
"""The cells that are estimated: those of the row whose ranks the bench has."""
DENSE = "dense"
SAMPLES = {"imagenet": IMAGENET[1], **{name: task.rows[0] for name, task in TASKS.items()}}
"""Numbers of training samples of these tables' data sets."""


@dataclass(frozen=True)
class SwitchEpoch:
    """E, the number of dense epochs. least: it is the lowest possible one, so the saving is the largest."""

    value: float
    source: str
    least: bool = False


@dataclass(frozen=True)
class Cell:
    """A network and a data set of a table.

    Attributes:
        choices: The names by which model and data are chosen.
        samples: Training samples of an epoch.
    """

    table: str
    choices: tuple[str, str]
    model: str
    data: str
    epochs: int
    samples: int
    switch: SwitchEpoch

    def cost(self, bench: Bench, precision: str) -> "Cost | None":
        """Return the device hours by a bench's steps; None if it has none of this network."""
        rows = bench.find(model=self.choices[0], precision=precision)
        dense = [row for row in rows if row["arm"] == DENSE]
        low = [row for row in rows if row["arm"] != DENSE]
        return Cost(self, dense[0], low[0]) if dense and low else None


@dataclass(frozen=True)
class Cost:
    """Device hours of a cell. dense, low: the bench's rows."""

    cell: Cell
    dense: dict[str, Any]
    low: dict[str, Any]

    @property
    def full_rank(self) -> float:
        """Device hours at full rank."""
        return self._hours(self.cell.epochs, self.dense)

    @property
    def cuttlefish(self) -> float:
        """Device hours with E dense epochs and low-rank ones behind them."""
        e = min(self.cell.switch.value, self.cell.epochs)
        return self._hours(e, self.dense) + self._hours(self.cell.epochs - e, self.low)

    @property
    def speedup(self) -> float:
        return self.full_rank / self.cuttlefish

    def _hours(self, epochs: float, row: dict[str, Any]) -> float:
        return epochs * self.cell.samples / row["batch"] * row["step_s"] / 3600


def cells(
    spec: Spec, conf: Path, tables: Iterable[str], finished: Sequence[Record], given: float | None = None
) -> Iterator[Cell]:
    """Yield the cells of tables.

    Args:
        conf: The folder of configs.
        finished: Records of finished runs, whose E counts where the cell has any.
        given: E as a share of the epochs, in place of all others.
    """
    from cuttlefish.config.compose import compose_config  # Hydra

    for table in tables:
        for point in points(spec, spec.table(table), SCALE):
            if point.row.name == ROW:
                yield _cell(point, compose_config(conf, point.words), finished, given)


def _cell(point: Point, config: Config, finished: Sequence[Record], given: float | None) -> Cell:
    model, data, epochs = config.model.name, config.data.name, config.recipe.epochs
    choices = tuple(dict(point.values)[key] for key in ("model", "data"))
    switch = _switch(config, finished) if given is None else SwitchEpoch(given * epochs, "given")
    return Cell(point.table, choices, model, data, epochs, SAMPLES[data], switch)


def _switch(config: Config, finished: Sequence[Record]) -> SwitchEpoch:
    """Return E: that of finished runs, else the fixed one, else the least that the stability test allows."""
    from cuttlefish.lowrank.stability import StabilityTest  # torch

    found = [
        record.switch_epoch
        for record in finished
        if (record.scale, record.model, record.data) == (SCALE, config.model.name, config.data.name)
        and (record.method, record.preset) == (config.method["name"], config.method.get("preset"))
        and record.switch_epoch is not None
    ]
    if found:
        return SwitchEpoch(mean(found), f"mean of {len(found)}")
    method = config.method
    if method.get("switch_epoch") is not None:
        return SwitchEpoch(method["switch_epoch"], "fixed")
    test = StabilityTest(
        method["stability"],
        epochs=config.recipe.epochs,
        min_epoch=method.get("min_epoch"),
        **(method.get("stability_options") or {}),
    )
    return SwitchEpoch(test.first + test.rule.lag, "the least", least=True)
