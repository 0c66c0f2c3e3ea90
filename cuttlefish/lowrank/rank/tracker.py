"""From measured ranks to those of the factors: β, floors, a model's history (paper, section 3.3)."""

from collections.abc import Callable, Iterable
from math import ceil, floor, isfinite

from torch import Tensor, nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.find import layer_of
from cuttlefish.lowrank.matrix import matrix_shape, unroll
from cuttlefish.lowrank.rank.beta import first_ranks, gaussian
from cuttlefish.lowrank.rank.measures import MEASURES
from cuttlefish.lowrank.rank.stable import stable_rank, stable_ranks

SQUARE = 4
"""β of a square Gaussian matrix: β ≈ (1 + √(a/b))² for a × b."""


def scaled_rank(
    stable: float,
    initial: float,
    full: int,
    *,
    first: float | None = None,
    floored: bool = False,
    rank_floor: float = 0.0,
    round_to: int = 1,
) -> int:
    """Return r = min(⌈β·s⌉, R), β = r(0) / s(0), at least max(1, ⌊rank_floor·R⌋), rounded up to a multiple.

    Args:
        stable: s, the layer's stable rank now.
        initial: s(0), that at initialisation. A layer that starts at zero has none: for 0, β is 4, as of a
            square Gaussian matrix. (`RankTracker` takes a Gaussian matrix of the layer's own shape.)
        full: R, the layer's full rank.
        first: r(0), the rank of its first weight; R by default, as of random weights.
        floored: Truncate both stable ranks to integers first, as the reference's code does.
        rank_floor: The lowest rank as a fraction of R.
        round_to: The multiple.
    """
    first = full if first is None else first
    if initial <= 0:
        initial = full / SQUARE
    if floored:
        stable, initial = max(floor(stable), 1), max(floor(initial), 1)
    # The tiny allowance keeps float noise from lifting an exact R·s/s(0) over the next integer.
    return clamp_rank(ceil(first * stable / initial - 1e-9 * full), full, rank_floor, round_to)


def clamp_rank(rank: int, full: int, rank_floor: float = 0.0, round_to: int = 1) -> int:
    """Return the rank rounded up to a multiple, at least max(1, ⌊rank_floor·full⌋) and at most `full`."""
    lowest = max(1, floor(rank_floor * full))
    return min(full, ceil(max(rank, lowest) / round_to) * round_to)


class RankTracker:
    """The ranks of a model's layers over the epochs; the first update gives s(0), hence β (section 3.3).

    Each update measures the weights that the model has then, even if its parameters were exchanged.

    Args:
        model: The model; its layers are looked up by name at each update.
        layers: Dotted names of modules with a `weight` of two or four dimensions.
        measure: `stable` (stable rank), `entropy` (effective rank), `energy` (singular values that hold 90 %
            of the energy), or a function of the m × n matrix (a tensor) that returns a number.
        scheme: Which m × n matrix a kernel is: `channel` or `spatial`.
        beta: What rank the first weights have, for β (see `first_ranks`).

    Attributes:
        metric: The measure's name.
        full, history: Each layer's full rank, and the values measured of it.
        first: r(0), the rank of each layer's first weight, from the first update on.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Iterable[str],
        *,
        measure: str | Callable[[Tensor], float] = "stable",
        scheme: str = "channel",
        beta: str = "auto",
    ):
        self.model, self.scheme, self.beta = model, scheme, beta
        self.first: dict[str, float] = {}
        self.metric = measure if isinstance(measure, str) else getattr(measure, "__name__", "own")
        if isinstance(measure, str) and measure not in MEASURES:
            raise CuttlefishError(
                f"The measure {measure!r} is unknown; it is {', '.join(MEASURES)} or a function."
            )
        self.measure = MEASURES[measure] if isinstance(measure, str) else measure
        self.shapes = {name: matrix_shape(self._weight(name).shape, scheme) for name in layers}
        self.full = {name: min(shape) for name, shape in self.shapes.items()}
        self.history: dict[str, list[float]] = {name: [] for name in self.shapes}

    def update(self) -> dict[str, float]:
        """Measure every layer and keep the values.

        Raises:
            CuttlefishError: A weight holds NaN or infinite values, or a layer has gone or changed its shape.
        """
        weights = {name: self._weight(name).detach() for name in self.history}
        ranks = dict(zip(weights, self._measured(weights), strict=True))
        bad = [name for name, rank in ranks.items() if not isfinite(rank)]
        if bad:
            raise CuttlefishError(self._explain(bad, weights))
        if not any(self.history.values()):
            first = {name: unroll(weight, self.scheme) for name, weight in weights.items()}
            self.first = first_ranks(self.beta, first, ranks, self.measure)
        for name, rank in ranks.items():
            self.history[name].append(rank)
        return ranks

    def scaled_ranks(
        self, *, floored: bool = False, rank_floor: float = 0.0, round_to: int = 1
    ) -> dict[str, int]:
        """Return the rank of each layer at its latest update, scaled by its β.

        A layer that starts at zero has no s(0): it takes the measure of a Gaussian matrix of its shape.
        """
        options = {"floored": floored, "rank_floor": rank_floor, "round_to": round_to}
        return {
            name: scaled_rank(
                values[-1], self._initial(name), self.full[name], first=self.first.get(name), **options
            )
            for name, values in self.history.items()
        }

    def stable_ranks(
        self, *, floored: bool = False, rank_floor: float = 0.0, round_to: int = 1
    ) -> dict[str, int]:
        """Return the unscaled alternative: ⌈s⌉ (or ⌊s⌋), bounded likewise."""
        whole = floor if floored else ceil
        return {
            name: clamp_rank(whole(values[-1]), self.full[name], rank_floor, round_to)
            for name, values in self.history.items()
        }

    def rows(self) -> list[dict[str, object]]:
        """Return the latest update as rows. `epoch`: updates before it; `stable_rank`: the metric's value."""
        scaled = self.scaled_ranks()
        return [
            {
                "epoch": len(values) - 1,
                "layer": name,
                "stable_rank": values[-1],
                "scaled_rank": scaled[name],
                "full_rank": self.full[name],
                "metric": self.metric,
            }
            for name, values in self.history.items()
        ]

    def _weight(self, name: str) -> Tensor:
        """Return the weight that the model has under this name now."""
        try:
            weight = layer_of(self.model, name).weight
        except AttributeError as error:
            raise CuttlefishError(
                f"The model has no layer {name!r} with a weight, which this tracker was made to follow."
            ) from error
        if hasattr(self, "history") and matrix_shape(weight.shape, self.scheme) != self.shapes[name]:
            raise CuttlefishError(f"Layer {name!r} has another shape than at first; make a new RankTracker.")
        return weight

    def _measured(self, weights: dict[str, Tensor]) -> list[float]:
        if self.measure is stable_rank and self.scheme == "channel":
            return stable_ranks(list(weights.values()))  # spares itself the copies that unrolling may make
        matrices = [unroll(weight, self.scheme) for weight in weights.values()]
        if self.measure is stable_rank:
            return stable_ranks(matrices)
        return [float(self.measure(matrix)) for matrix in matrices]

    def _initial(self, name: str) -> float:
        initial = self.history[name][0]
        if initial > 0:
            return initial
        return float(self.measure(gaussian(self.shapes[name])))

    def _explain(self, bad: list[str], weights: dict[str, Tensor]) -> str:
        name, updates = bad[0], len(self.history[bad[0]])
        others = f" (and of {len(bad) - 1} more)" if len(bad) > 1 else ""
        if weights[name].isfinite().all():
            return (
                f"The measure {self.metric!r} of layer {name!r}{others} is not finite, though its weight is."
            )
        return (
            f"The weight of layer {name!r}{others} holds NaN or infinite values before epoch {updates}: "
            "training has diverged; go back to an earlier checkpoint, or lower the learning rate."
        )
