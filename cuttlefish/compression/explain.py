"""A table of a model's layers: what could become of each, and why."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from cuttlefish.lowrank.find import find_layers
from cuttlefish.lowrank.matrix import full_rank, matrix_shape
from cuttlefish.lowrank.path import candidates, main_path, why_dense
from cuttlefish.lowrank.rank import stable_ranks
from cuttlefish.lowrank.surgery import break_even
from cuttlefish.lowrank.trace import Batch, Forward, TracedLayer


@dataclass(frozen=True)
class Row:
    """One executed layer. shape: of its matrix. break_even: the rank at which factors are as large.

    decision: factorize or dense; reason: why it stays dense, or empty.
    """

    layer: str
    kind: str
    shape: tuple[int, int]
    parameters: int
    full_rank: int
    stable_rank: float
    break_even: float
    decision: str
    reason: str


@dataclass(frozen=True)
class Explanation:
    """The layers in the order of their execution; printed, a table."""

    rows: list[Row]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __str__(self) -> str:
        head = f"{'layer':<40}{'kind':<16}{'matrix':>12}{'full':>6}{'stable':>8}{'even':>7}  decision"
        lines = [
            f"{row.layer:<40}{row.kind:<16}{'×'.join(map(str, row.shape)):>12}{row.full_rank:>6}"
            f"{row.stable_rank:>8.1f}{row.break_even:>7.1f}  {row.decision}"
            + (f": {row.reason}" if row.reason else "")
            for row in self.rows
        ]
        return "\n".join([head, *lines])


def explain(model: nn.Module, batch: Batch, *, k: int = 1, forward: Forward | None = None) -> Explanation:
    """Return what `Cuttlefish` would do with each layer that one batch runs through.

    Args:
        model: A plain module; it is only looked at.
        batch: Inputs: a tensor, a tuple by position or a mapping by name.
        k: K, the leading dense layers.
        forward: How to call the model on a batch.

    Raises:
        CuttlefishError: The model is wrapped, or has no layer to factorize.
    """
    path = main_path(model, batch, shortcuts=True, forward=forward)
    beside = {layer.name: "it is a shortcut" for layer in path if layer.shortcut}
    chosen = [name for name in candidates(model, path, k) if name not in beside]
    reasons = why_dense(model, path, chosen, k) | beside | _refused(model)
    ranks = stable_ranks([layer.module.weight for layer in path])
    return Explanation(
        [_row(layer, rank, layer.name in chosen, reasons) for layer, rank in zip(path, ranks, strict=True)]
    )


def _refused(model: nn.Module) -> dict[str, str]:
    return find_layers(model).refused


def _row(layer: TracedLayer, rank: float, chosen: bool, reasons: dict[str, str]) -> Row:
    weight = layer.module.weight
    return Row(
        layer.name,
        type(layer.module).__name__,
        matrix_shape(weight.shape),
        sum(parameter.numel() for parameter in layer.module.parameters()),
        full_rank(weight),
        rank,
        break_even(layer.module),
        "factorize" if chosen else "dense",
        "" if chosen else reasons.get(layer.name, ""),
    )
