"""Pufferfish (Wang et al., MLSys 2021) as in the Cuttlefish paper: fixed E, K and one global rank ratio.

The switch is Cuttlefish's with other numbers: dense to epoch E, then every layer after the first K becomes
low-rank with ratio 1/4 by truncated SVD of its trained weight, with a new optimizer and a repeated warm-up.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import floor
from typing import Annotated

from torch import Tensor, nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.limits import Checked, Within
from cuttlefish.lowrank.find import nearest
from cuttlefish.lowrank.profiling import candidates, main_path
from cuttlefish.lowrank.rank import clamp_rank, full_rank
from cuttlefish.lowrank.settings import Settings as CuttlefishSettings
from cuttlefish.methods.base import Context
from cuttlefish.methods.cuttlefish import CuttlefishMethod


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
    full = {name: full_rank(model.get_submodule(name).weight) for name in chosen}
    return {name: clamp_rank(floor(ratio * rank), rank) for name, rank in full.items()}


@dataclass(frozen=True)
class Settings(Checked):
    """k: K, leading dense layers of the main path. rank_ratio: of every factorized layer's full rank.

    switch_epoch: E; if None, switch_fraction of the run's epochs (the paper's 80 of 300). extra_bn: batch
    norm between the factors of a convolution (the paper, section 4.1). dense: patterns of further layers to
    keep dense. The rest as in Cuttlefish.
    """

    k: Annotated[int | None, Within(0, 10_000)] = None
    rank_ratio: Annotated[float, Within(0, 1, "(]")] = 0.25
    switch_epoch: Annotated[int | None, Within(0, 100_000)] = None
    switch_fraction: Annotated[float, Within(0, 1, "()")] = 80 / 300
    extra_bn: bool = True
    factorize_shortcuts: bool = False
    dense: list[str] = field(default_factory=list)
    shortcut_bn: bool = True
    first_bias: bool = False
    keep_dense: bool = True
    rewarm: bool = True
    overshoot: bool = False
    track_ranks: bool = False


class Pufferfish(CuttlefishMethod):
    """Cuttlefish's method with given numbers in place of those it would find."""

    name = "pufferfish"
    Settings = Settings

    def core_settings(self, context: Context) -> CuttlefishSettings:
        fixed = self.settings
        if fixed.k is None:
            raise CuttlefishError(
                f"Pufferfish has no K for {context.model_name}: give method.k, the number of leading layers "
                "left dense"
            )
        inputs = context.example_batch().inputs
        same = (
            *("k", "extra_bn", "shortcut_bn", "first_bias", "factorize_shortcuts", "keep_dense"),
            *("rewarm", "overshoot", "track_ranks"),
        )
        epoch = fixed.switch_epoch
        if epoch is None:
            epoch = scaled_epoch(fixed.switch_fraction, context.recipe.epochs)
        shortcuts = fixed.factorize_shortcuts
        ranks = fixed_ranks(
            context.model, inputs, fixed.k, fixed.rank_ratio, dense=fixed.dense, shortcuts=shortcuts
        )
        if not ranks:
            raise CuttlefishError(
                f"K = {fixed.k} leaves no layer of {context.model_name} to factorize: choose a lower method.k"
            )
        shared = {name: getattr(fixed, name) for name in same}
        return CuttlefishSettings(switch_epoch=epoch, ranks=ranks, **shared)
