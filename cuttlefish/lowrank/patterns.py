"""Parts of a model by patterns of their dotted names (`*.intermediate.dense`), as settings name them."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.find import nearest


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a dotted name is one of the patterns' (`*` is any text, dots included)."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def check_patterns(model: nn.Module, patterns: Sequence[str], where: str) -> None:
    """Raise CuttlefishError for a pattern that is no module of the model's."""
    names = [name for name, _ in model.named_modules()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise CuttlefishError(
                f"{where} names {pattern!r}, which is no layer of this model{nearest(pattern, names)}"
            )


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Exempt the parameters of all modules of these names from training; they get no gradients."""
    for name, module in model.named_modules():
        if matches(name, patterns):
            for parameter in module.parameters():
                parameter.requires_grad_(False)
                parameter.grad = None
