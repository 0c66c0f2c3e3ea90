"""The architecture of a low-rank model as plain JSON: which layers, of which rank and form."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.find import find_layers, low_rank_layers
from cuttlefish.lowrank.surgery import check_ranks, factorize, require_bare

FORMAT = "cuttlefish-plan-1"
ENTRY = {"rank", "shape", "scheme", "extra_bn", "first_bias"}
"""What a plan says of a layer."""


def plan(model: nn.Module) -> dict[str, Any]:
    """Return what `apply` needs to give another full-rank model of the same kind this one's low-rank layers.

    Returns:
        Plain containers for JSON: `format`, and `layers`: dotted name → `rank`, `shape` of the dense weight,
        `scheme`, `extra_bn`, `first_bias`.
    """
    layers = {
        name: {
            "rank": layer.rank,
            "shape": list(layer.weight_shape),
            "scheme": layer.scheme,
            "extra_bn": layer.bn is not None,
            "first_bias": layer.first.bias is not None,
        }
        for name, layer in low_rank_layers(model).items()
    }
    return {"format": FORMAT, "layers": layers}


def apply(model: nn.Module, plan: Mapping[str, Any], *, initialise: bool = True) -> nn.Module:
    """Give a full-rank model the low-rank layers of a plan, in place and without data.

    Args:
        model: A plain full-rank module, neither wrapped nor compiled.
        plan: What `plan` has returned.
        initialise: Split the model's weights; False leaves the factors zero, for a state dict to load.

    Returns:
        The same model.

    Raises:
        CuttlefishError: The plan is none, or names a layer that the model has not, or of another shape.
            Nothing is changed then.
    """
    _check(plan)
    require_bare(model)
    layers = plan["layers"]
    found = find_layers(model).layers
    for name, entry in layers.items():
        if name in found and list(found[name].weight.shape) != entry["shape"]:
            raise CuttlefishError(
                f"the plan's layer {name!r} has a weight of {entry['shape']}, the model's of "
                f"{list(found[name].weight.shape)}"
            )
        check_ranks(model, {name: entry["rank"]}, entry["scheme"])
    for form in {_form(entry) for entry in layers.values()}:
        ranks = {name: entry["rank"] for name, entry in layers.items() if _form(entry) == form}
        factorize(model, ranks, keep_dense=False, initialise=initialise, **dict(form))
    return model


def _check(plan: Any) -> None:
    """Raise CuttlefishError for anything but a plan, which may come from a file."""
    if not isinstance(plan, Mapping):
        raise CuttlefishError(f"this is no plan of cuttlefish but a {type(plan).__name__}")
    if plan.get("format") != FORMAT:
        raise CuttlefishError(
            f"this is no plan of cuttlefish: its format is {plan.get('format')!r}, not {FORMAT!r}"
        )
    layers = plan.get("layers")
    for name, entry in layers.items() if isinstance(layers, Mapping) else [("layers", layers)]:
        if not isinstance(entry, Mapping) or ENTRY - entry.keys():
            raise CuttlefishError(f"the plan is damaged: {name!r} has no {', '.join(sorted(ENTRY))}")


def _form(entry: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((key, entry[key]) for key in ("scheme", "extra_bn", "first_bias"))
