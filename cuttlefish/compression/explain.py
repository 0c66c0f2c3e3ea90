"""A table of a model's layers: what could become of each, and why."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from cuttlefish.lowrank.find import Dense, find_layers
from cuttlefish.lowrank.matrix import full_rank, matrix_shape
from cuttlefish.lowrank.path import candidates, main_path, why_apart, why_dense
from cuttlefish.lowrank.rank import stable_ranks
from cuttlefish.lowrank.surgery import break_even
from cuttlefish.lowrank.trace import Batch, Forward


@dataclass(frozen=True)
class Row:
    """One layer. shape: of its matrix. break_even: the rank at which factors are as large.

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
    """Return what `Cuttlefish` would do with each layer; those that the batch does not run come last.

    Args:
        model: A plain module; it is only looked at.
        batch: Inputs: a tensor, a tuple by position or a mapping by name.
        k: K, the leading dense layers.
        forward: How to call the model on a batch.

    Raises:
        CuttlefishError: The model is wrapped, or has no layer to factorize.
    """
    path = main_path(model, batch, shortcuts=True, forward=forward)
    found, apart = find_layers(model), why_apart(model, path)
    chosen = [name for name in candidates(model, path, k) if name not in apart]
    reasons = why_dense(model, path, chosen, k) | apart | found.refused
    layers = {layer.name: layer.module for layer in path} | {
        name: found.layers[name] for name in apart if name in found.layers
    }
    ranks = stable_ranks([module.weight for module in layers.values()])
    return Explanation(
        [
            _row(name, module, rank, "" if name in chosen else reasons.get(name, ""))
            for (name, module), rank in zip(layers.items(), ranks, strict=True)
        ]
    )


def _row(name: str, module: Dense, rank: float, reason: str) -> Row:
    weight = module.weight
    return Row(
        name,
        type(module).__name__,
        matrix_shape(weight.shape),
        sum(parameter.numel() for parameter in module.parameters()),
        full_rank(weight),
        rank,
        break_even(module),
        "dense" if reason else "factorize",
        reason,
    )
