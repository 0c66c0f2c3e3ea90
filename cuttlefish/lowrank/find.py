"""Which layers of a model can be factorized, and why the others cannot; found by looking, never by name."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from types import MethodType
from typing import Any, cast

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrize import is_parametrized

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.layers import LowRankLayer
from cuttlefish.lowrank.layout import PlainConv2d

Dense = nn.Conv2d | nn.Linear
"""A layer that can be factorized."""

READ_BY_ATTENTION = "nn.MultiheadAttention reads its weight instead of calling it"
READ_BY_FAST_PATH = "the fast path of torch's transformer layers reads its weight instead of calling it"
OTHERS = (_ConvNd, nn.Bilinear, nn.RNNBase, nn.RNNCellBase)
"""Layers with weight matrices that are not factorized, beside nn.Conv2d and nn.Linear."""

INTERNAL = frozenset(vars(nn.Module()))
"""Attributes in which torch itself keeps a module's children, parameters and hooks."""


@dataclass(frozen=True)
class Found:
    """What of a model can be factorized.

    layers: dotted name → layer, in the order of registration.
    refused: dotted name → reason, for the layers that look alike.
    held: the refused ones that plain Python containers hold, most likely by mistake.
    """

    layers: dict[str, Dense]
    refused: dict[str, str]
    held: set[str]


def find_layers(model: nn.Module) -> Found:
    """Return every nn.Conv2d without groups and every nn.Linear, each once, under its first name."""
    claimed, owners, held = _claimed(model), _owners(model), _held(model)
    found = Found({}, {}, set())
    for name, module in model.named_modules():
        if not isinstance(module, (LowRankLayer, nn.Linear, *OTHERS)) and not _is_transformers_conv1d(module):
            continue
        reason = _root(name) or claimed.get(module) or _reason(module) or _tied(module, owners)
        if reason or module in held:
            found.refused[name] = reason or held[module]
            found.held.update([name] if not reason else [])
        else:
            found.layers[name] = cast(Dense, module)
    return found


def layer_of(model: nn.Module, name: str) -> Dense:
    """Return the module of this dotted name, which is known to be a dense layer."""
    return cast(Dense, model.get_submodule(name))


def low_rank_layers(model: nn.Module) -> dict[str, LowRankLayer]:
    """Return dotted name → low-rank layer, each once, under its first name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LowRankLayer)}


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown name."""
    close = get_close_matches(name, list(known), n=3, cutoff=0.4)
    return f"; the nearest names are {', '.join(close)}" if close else ""


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


def _root(name: str) -> str | None:
    if name:
        return None
    return "it is the model itself, which cannot be replaced inside itself; put it into an nn.Sequential"


def _claimed(model: nn.Module) -> dict[nn.Module, str]:
    """Return the modules that a parent uses otherwise than by calling them."""
    claimed: dict[nn.Module, str] = {}
    for name, parent in model.named_modules():
        for key, child in parent.named_children():
            if isinstance(parent, LowRankLayer):
                claimed[child] = f"it is a factor of the low-rank layer {name!r}"
            elif isinstance(parent, nn.MultiheadAttention):
                claimed[child] = READ_BY_ATTENTION
            elif isinstance(parent, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer) and key in (
                "linear1",
                "linear2",
            ):
                claimed[child] = READ_BY_FAST_PATH
    return claimed


def _reason(module: nn.Module) -> str | None:
    """Return what in the layer itself forbids replacing it."""
    kind = type(module).__name__
    if isinstance(module, LowRankLayer):
        return f"it is low-rank already (rank {module.rank})"
    if _is_transformers_conv1d(module):
        return "it is a Conv1D of transformers, whose weight is stored as in × out; use an nn.Linear instead"
    if isinstance(module, _ConvTransposeNd):
        return (
            f"it is a transposed convolution ({kind}); only nn.Conv2d and nn.Linear layers can be factorized"
        )
    if not isinstance(module, nn.Conv2d | nn.Linear):
        return f"it is a {kind}; only nn.Conv2d and nn.Linear layers can be factorized"
    if isinstance(module, LazyModuleMixin):
        return "it is a lazy module without a shape yet; run one batch through the model first"
    if is_parametrized(module) or "weight" not in dict(module.named_parameters(recurse=False)):
        return "its weight is computed from other tensors (a parametrization, weight norm or pruning)"
    if type(module) not in (nn.Conv2d, PlainConv2d, nn.Linear) or "forward" in vars(module):
        return f"it is a {kind} with behaviour of its own, which a low-rank layer would not follow"
    if module.weight.is_complex():
        return "its weight is complex"
    groups = getattr(module, "groups", 1)
    if groups != 1:
        which = "depthwise" if groups == module.in_channels else "grouped"
        return f"it is a {which} convolution (groups={groups})"
    return None


def _is_transformers_conv1d(module: nn.Module) -> bool:
    return any(kind.__name__ == "Conv1D" for kind in type(module).__mro__)


def _owners(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    owners: dict[nn.Parameter, list[str]] = defaultdict(list)
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            owners[parameter].append(f"{name}.{key}".lstrip("."))
    return owners


def _tied(module: nn.Module, owners: dict[nn.Parameter, list[str]]) -> str | None:
    for parameter in module.parameters(recurse=False):
        if len(owners[parameter]) > 1:
            return f"its weight or bias is tied: {' and '.join(owners[parameter])} are one parameter"
    return None


def _held(model: nn.Module) -> dict[nn.Module, str]:
    """Return the modules that plain attributes hold, too: the old layer would go on being called there."""
    held: dict[nn.Module, str] = {}
    for name, parent in model.named_modules():
        for key, value in vars(parent).items():
            if key not in INTERNAL:
                where = f"{name}.{key}".lstrip(".")
                why = f"{where} holds it, too, as a plain {type(value).__name__}, and would keep it"
                held |= dict.fromkeys(_inside(value), f"{why}; use an nn.ModuleList or nn.ModuleDict")
    return held


def _inside(value: Any, depth: int = 3) -> Iterator[nn.Module]:
    """Yield the modules in a plain container, in the owner of a bound method, or the module itself."""
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, MethodType):
        yield from _inside(value.__self__, depth)
    elif depth and isinstance(value, list | tuple | set | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _inside(item, depth - 1)
