"""Check the knobs of automatic low-rank training against a model."""

from fnmatch import fnmatchcase

from torch import nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.find import check_patterns, nearest
from cuttlefish.lowrank.path import candidates
from cuttlefish.lowrank.settings import Settings
from cuttlefish.lowrank.surgery import check_ranks
from cuttlefish.lowrank.trace import TracedLayer


def check_settings(settings: Settings, model: nn.Module, path: list[TracedLayer], epochs: int | None) -> None:
    """Raise CuttlefishError where settings name what the model or the run does not have.

    Args:
        model: The full-rank model.
        path: Its main path (`main_path`).
        epochs: Length of the run, if known.
    """
    for sentence in settings.outside(epochs) if epochs is not None else ():
        raise CuttlefishError(sentence)
    names = [layer.name for layer in path]
    for name in settings.untracked:
        if name not in names:
            raise CuttlefishError(
                f"untracked names {name!r}, which is no layer of this model's main path{nearest(name, names)}"
            )
    for pattern in settings.dense:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise CuttlefishError(
                f"dense names {pattern!r}, which is no layer of this model{nearest(pattern, names)}"
            )
    check_patterns(model, settings.freeze, "freeze")
    check_ranks(model, settings.ranks or {}, settings.scheme)
    k = settings.leading(otherwise=1)
    for name in (settings.ranks or {}).keys() - candidates(model, path, k):
        raise CuttlefishError(
            f"ranks names {name!r}, which stays dense: it is a shortcut, the last layer or one of the "
            f"first {k}"
        )
