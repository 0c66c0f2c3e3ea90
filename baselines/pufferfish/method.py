"""Pufferfish (Wang et al., MLSys 2021) as in the Cuttlefish paper: fixed E, K and one global rank ratio.

The switch is Cuttlefish's with other numbers: dense to epoch E, then every layer after the first K becomes
low-rank with ratio 1/4 by truncated SVD of its trained weight, with a new optimizer and a repeated warm-up.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from math import floor
from typing import Any

from torch import Tensor, nn

from baselines.pufferfish.settings import Settings
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.find import nearest
from cuttlefish.lowrank.matrix import matrix_shape
from cuttlefish.lowrank.path import candidates, main_path
from cuttlefish.lowrank.rank import clamp_rank, full_rank
from cuttlefish.lowrank.settings import Settings as CuttlefishSettings
from cuttlefish.lowrank.surgery import break_even
from cuttlefish.methods.base import Context
from cuttlefish.methods.cuttlefish.method import CuttlefishMethod
from cuttlefish.methods.sized import SizedMethod
from cuttlefish.methods.target import find_fraction


def scaled_epoch(fraction: float, epochs: int) -> int:
    """Return E = round(fraction · T), with at least one dense and one low-rank epoch."""
    return max(1, min(round(fraction * epochs), epochs - 1))


def fixed_ranks(
    model: nn.Module,
    example: Tensor,
    k: int,
    ratio: float,
    *,
    dense: Sequence[str] = (),
    shortcuts: bool = False,
) -> dict[str, int]:
    """Return layer → ⌊ratio · full rank⌋ (at least 1), for layers after the first `k` and before the last.

    dense: name patterns to leave out; shortcuts: include the 1×1 convolutions beside the main path, whose
    layers k counts from 1. The model is not changed.
    """
    names = candidates(model, main_path(model, example, shortcuts=shortcuts), k)
    for pattern in dense:
        if not any(fnmatchcase(name, pattern) for name, _ in model.named_modules()):
            raise CuttlefishError(
                f"dense names {pattern!r}, which is no layer of this model{nearest(pattern, names)}"
            )
    chosen = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in dense)]
    return share_of({name: full_rank(model.get_submodule(name).weight) for name in chosen}, ratio)


def share_of(full: Mapping[str, int], ratio: float) -> dict[str, int]:
    """Return layer → ⌊ratio · full rank⌋, at least 1."""
    return {name: clamp_rank(floor(ratio * rank), rank) for name, rank in full.items()}


def size_with(
    model: nn.Module,
    ranks: Mapping[str, int],
    *,
    keep_dense: bool = True,
    first_bias: bool = False,
    norms: Collection[str] = (),
) -> int:
    """Return how many parameters the model has with these ranks.

    keep_dense: layers at or above break-even stay as they are. first_bias: the first factors of linear layers
    have biases. norms: convolutions with a batch norm between their factors.
    """
    size = sum(parameter.numel() for parameter in model.parameters())
    for name, rank in ranks.items():
        layer = model.get_submodule(name)
        rows, columns = matrix_shape(layer.weight.shape)
        if not keep_dense or rank < break_even(layer):
            bias = int(first_bias and isinstance(layer, nn.Linear))
            size += rank * (rows + columns + bias + 2 * (name in norms)) - rows * columns
    return size


class Pufferfish(SizedMethod, CuttlefishMethod):
    """Cuttlefish's method with given numbers in place of those it would find."""

    name = "pufferfish"
    Settings = Settings

    def core_settings(self, context: Context) -> CuttlefishSettings:
        fixed = self.settings
        k = self._k(context)
        if k is None:
            raise CuttlefishError(
                f"Pufferfish has no K for {context.model_name}: give method.k, the number of leading layers "
                "left dense"
            )
        same = (
            *("extra_bn", "shortcut_bn", "first_bias", "factorize_shortcuts", "keep_dense"),
            *("rewarm", "overshoot", "track_ranks"),
        )
        epoch = fixed.switch_epoch
        if epoch is None:
            epoch = scaled_epoch(fixed.switch_fraction, context.recipe.epochs)
        ranks = self._ranks(context, k)
        if not ranks:
            raise CuttlefishError(
                f"K = {k} leaves no layer of {context.model_name} to factorize: choose a lower method.k"
            )
        shared = {name: getattr(fixed, name) for name in same}
        return CuttlefishSettings(k=k, switch_epoch=epoch, ranks=ranks, **shared)

    def on_fit_end(self, context: Context) -> dict[str, Any]:
        achieved = sum(parameter.numel() for parameter in context.model.parameters())
        return self.with_target(super().on_fit_end(context), achieved)

    def _k(self, context: Context) -> int | None:
        """Return the given K, or the one at which the size is nearest to the target's."""
        fixed, model = self.settings, context.model
        if self.target is None or fixed.sized_by == "rank_ratio":
            return fixed.k
        ranks = self._at(context, 1, fixed.rank_ratio)
        path = main_path(model, context.example_batch().inputs, shortcuts=fixed.factorize_shortcuts)
        size = self._size(context)
        sizes = {}
        for k in range(1, sum(not layer.shortcut for layer in path)):
            behind = [name for name in candidates(model, path, k) if name in ranks]
            sizes |= {k: size({name: ranks[name] for name in behind})} if behind else {}
        self.check_reachable(min(sizes.values()), size({}))
        return min(sizes, key=lambda k: abs(sizes[k] - self.target.params))

    def _ranks(self, context: Context, k: int) -> dict[str, int]:
        """Return the ranks of the given ratio, or of the one whose size is nearest to the target's."""
        fixed = self.settings
        if self.target is None or fixed.sized_by == "k":
            return self._at(context, k, fixed.rank_ratio)
        size = self._size(context)
        full = self._at(context, k, 1.0)

        def size_at(ratio: float) -> int:
            return size(share_of(full, ratio))

        self.check_reachable(size_at(0.0), size_at(1.0))
        return self._at(context, k, find_fraction(size_at, self.target.params))

    def _at(self, context: Context, k: int, ratio: float) -> dict[str, int]:
        options = {"dense": self.settings.dense, "shortcuts": self.settings.factorize_shortcuts}
        return fixed_ranks(context.model, context.example_batch().inputs, k, ratio, **options)

    def _size(self, context: Context) -> Callable[[dict[str, int]], int]:
        """Return a function from ranks to the size of the whole model."""
        fixed, model = self.settings, context.model
        path = main_path(model, context.example_batch().inputs, shortcuts=True)
        plain = {layer.name for layer in path if layer.shortcut and not fixed.shortcut_bn}
        norms = {layer.name for layer in path if isinstance(layer.module, nn.Conv2d)} - plain
        options = {"keep_dense": fixed.keep_dense, "first_bias": fixed.first_bias}
        return partial(size_with, model, norms=norms if fixed.extra_bn else (), **options)
