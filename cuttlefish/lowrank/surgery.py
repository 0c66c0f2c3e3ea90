"""Replace a model's layers by low-rank ones, in place and by dotted name, and back."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral

from torch import Tensor, nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.find import Found, find_layers, layer_of, low_rank_layers, nearest
from cuttlefish.lowrank.layers import LowRankLayer, check_extra_bn
from cuttlefish.lowrank.matrix import matrix_shape, truncated_svds, unroll
from cuttlefish.lowrank.split import merge_layer, split_layer

__all__ = [
    "Found",
    "break_even",
    "densify",
    "factorize",
    "find_layers",
    "low_rank_layers",
    "replace_module",
    "require_bare",
]

LOG = logging.getLogger("cuttlefish")

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)
"""Where torch keeps what `register_forward_hook` and its like were given. A handle removes it there later."""


WRAPPERS = {
    "DistributedDataParallel": "change the wrapped model's .module and wrap that again",
    "DataParallel": "change the wrapped model's .module and wrap that again",
    "OptimizedModule": "change the model that was given to torch.compile and compile that again",
    "FullyShardedDataParallel": "change the model before it is sharded",
    "FSDPModule": "change the model before it is sharded",
    "ScriptModule": "change the Python model and script that again",
}


def factorize(
    model: nn.Module,
    ranks: Mapping[str, int],
    *,
    extra_bn: bool = False,
    first_bias: bool = False,
    scheme: str = "channel",
    keep_dense: bool = True,
    initialise: bool = True,
    exact: bool = False,
) -> nn.Module:
    """Replace the named layers by low-rank ones of the given ranks, in place.

    Everything is checked before anything changes. As many layers are decomposed at a time as torch has
    threads, and a dense layer is dropped when its factors are there. Optimizers and wrappers made before are
    stale afterwards. Hooks of the layers go over, and so do attributes of their parameters.

    Args:
        model: A plain module, neither wrapped nor compiled.
        ranks: Dotted layer name (as `find_layers` gives it) → rank, from 1 to the layer's full rank.
        extra_bn: Put a BN between the factors of each convolution (never of a Linear); channel scheme only.
        first_bias: Give the first factor of each Linear a bias of its own, as the reference's code does.
        scheme: `channel` or `spatial`, see `LowRankConv2d`.
        keep_dense: Leave a layer alone whose rank is at or above `break_even`, which the log says.
        initialise: Split the trained weights by SVD; False leaves the factors zero, for a state dict to load.
        exact: Split by the full SVD: several times slower, the same to about 1e-13 (see `truncated_svd`).

    Returns:
        The same model.

    Raises:
        CuttlefishError: The model is wrapped, or a layer cannot be factorized at its rank.
    """
    require_bare(model)
    check_extra_bn(extra_bn, scheme)
    check_ranks(model, ranks, scheme)
    if initialise:
        _check_finite(model, ranks)
    smaller = _smaller(model, ranks, scheme) if keep_dense else ranks
    factors = _factors(model, smaller, scheme) if initialise and not exact else [None] * len(smaller)
    options = {"extra_bn": extra_bn, "first_bias": first_bias, "scheme": scheme}
    places = _places(model)
    for (name, rank), known in zip(smaller.items(), factors, strict=True):
        layer = layer_of(model, name)
        new = split_layer(layer, int(rank), **options, initialise=initialise, exact=exact, factors=known)
        _carry_over(name, layer, new)
        for parent, key in places.pop(layer):
            setattr(parent, key, new)
    return model


def _smaller(model: nn.Module, ranks: Mapping[str, int], scheme: str) -> dict[str, int]:
    """Return the ranks below break-even, and log which are not."""
    smaller = {}
    for name, rank in ranks.items():
        layer = layer_of(model, name)
        if rank < break_even(layer, scheme):
            smaller[name] = rank
        else:
            LOG.info("%s stays dense: %s", name, saves_nothing(layer, rank, scheme))
    return smaller


def _factors(model: nn.Module, ranks: Mapping[str, int], scheme: str) -> Iterator[tuple[Tensor, Tensor]]:
    return truncated_svds(
        (unroll(layer_of(model, name).weight, scheme), int(rank)) for name, rank in ranks.items()
    )


def densify(model: nn.Module) -> nn.Module:
    """Multiply every low-rank layer's factors back into a plain layer, in place, and return the model.

    Extra BNs are folded in by their running statistics: the result equals the low-rank model in eval mode.
    """
    require_bare(model)
    for name, layer in low_rank_layers(model).items():
        replace_module(model, name, merge_layer(layer))
    return model


def replace_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` in the place of the module of this dotted name, in every parent that shares it."""
    if not name:
        raise CuttlefishError(
            "The model itself cannot be replaced in place; put it into an nn.Sequential first."
        )
    modules = dict(model.named_modules(remove_duplicate=False))
    if name not in modules:
        raise CuttlefishError(f"The model has no module {name!r}{nearest(name, modules)}.")
    for parent, key in _places(model)[modules[name]]:
        setattr(parent, key, new)


def _places(model: nn.Module) -> dict[nn.Module, list[tuple[nn.Module, str]]]:
    """Return each module's places: the parents that hold it, and under which names."""
    places: defaultdict[nn.Module, list[tuple[nn.Module, str]]] = defaultdict(list)
    for parent in model.modules():
        for key, child in parent._modules.items():
            if child is not None:
                places[child].append((parent, key))
    return places


def break_even(module: nn.Conv2d | nn.Linear, scheme: str = "channel") -> float:
    """Return the rank m·n / (m + n) at which two factors hold as many numbers as the dense m × n weight."""
    m, n = matrix_shape(module.weight.shape, scheme)
    return m * n / (m + n)


def saves_nothing(module: nn.Conv2d | nn.Linear, rank: int, scheme: str = "channel") -> str:
    """Return the reason why a layer stays dense whose rank is at or above break-even."""
    return f"rank {rank} saves nothing (break-even {break_even(module, scheme):.1f})"


def require_bare(model: nn.Module) -> None:
    """Refuse a model that is, or holds, a distributed, compiled, sharded or scripted wrapper.

    A wrapper would go on using the old layers.
    """
    for name, module in model.named_modules():
        for kind in type(module).__mro__:
            if kind.__name__ in WRAPPERS:
                where = f"Its part {name!r}" if name else "The model"
                raise CuttlefishError(
                    f"{where} is wrapped in {kind.__name__} and cannot be changed in place; "
                    f"{WRAPPERS[kind.__name__]}."
                )


def check_ranks(model: nn.Module, ranks: Mapping[str, int], scheme: str = "channel") -> None:
    """Raise CuttlefishError for a layer that cannot be factorized, or not at its rank."""
    found = find_layers(model)
    for name, rank in ranks.items():
        if name in found.refused:
            raise CuttlefishError(f"Layer {name!r} cannot be factorized: {found.refused[name]}.")
        if name not in found.layers:
            raise CuttlefishError(_unknown(model, name, found))
        weight = found.layers[name].weight
        full = min(matrix_shape(weight.shape, scheme))
        if not isinstance(rank, Integral) or not 1 <= rank <= full:
            raise CuttlefishError(
                f"Layer {name!r} was given rank {rank!r}; it must be a whole number from 1 to {full} "
                f"({scheme} scheme)."
            )


def _check_finite(model: nn.Module, names: Iterable[str]) -> None:
    for name in names:
        weight = layer_of(model, name).weight.detach()
        if not weight.sum().isfinite() and not weight.isfinite().all():
            raise CuttlefishError(
                f"The weight of layer {name!r} holds NaN or infinite values; "
                "factorize before training diverges."
            )


def _unknown(model: nn.Module, name: str, found: Found) -> str:
    modules = dict(model.named_modules(remove_duplicate=False))
    if name not in modules:
        return f"The model has no layer {name!r}{nearest(name, [*found.layers, *found.refused])}."
    first = next(first for first, module in model.named_modules() if module is modules[name])
    if first != name:
        return f"Layer {name!r} is the shared module {first!r}; give its rank under that name."
    kind = type(modules[name]).__name__
    return f"Module {name!r} is a {kind}; only nn.Conv2d and nn.Linear layers can be factorized."


def _carry_over(name: str, old: nn.Conv2d | nn.Linear, new: LowRankLayer) -> None:
    """Move the hooks of a layer, and give both factors the attributes that a script has set on its weight.

    Hooks on the weight itself cannot go over, since they were made for its shape: the log names them.
    """
    for attribute in HOOKS:
        setattr(new, attribute, getattr(old, attribute))
    for factor in (new.first.weight, new.second.weight):
        factor.__dict__.update(old.weight.__dict__)
    if old.bias is not None:
        new.bias.__dict__.update(old.bias.__dict__)
    if old.weight._backward_hooks or getattr(old.weight, "_post_accumulate_grad_hooks", None):
        LOG.warning("%s.weight had gradient hooks, which its factors have not: register them again", name)
