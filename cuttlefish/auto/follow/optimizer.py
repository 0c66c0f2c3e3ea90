"""An optimizer follows the switch in place: its class, groups and other parameters' states stay."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cuttlefish.auto.switch import Replaced
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.layers import LowRankLayer
from cuttlefish.lowrank.matrix import unroll

Momentum = Literal["fresh", "projected"]
Group = dict[str, Any]


def check_can_follow(optimizer: Optimizer, model: nn.Module, layers: list[str], decayed: bool) -> None:
    """Raise CuttlefishError, before anything has changed, if an optimizer cannot follow the switch.

    Args:
        optimizer: That of the dense weights.
        model: The full-rank model.
        layers: Those that will be factorized.
        decayed: Whether their factors will be under Frobenius decay.
    """
    held = _groups_by_parameter(optimizer)
    groups = [held.get(id(model.get_submodule(name).weight)) for name in layers]
    if layers and not any(group is not None for group in groups):
        raise CuttlefishError(
            f"the {type(optimizer).__name__} holds none of the weights that the switch will replace: it "
            "is not the one that trains this model"
        )
    for name, group in zip(layers, groups, strict=True):
        if decayed and group is not None and group.get("weight_decay"):
            _require_home(optimizer, group, f"{name}.weight")


@torch.no_grad()
def follow_switch(
    optimizer: Optimizer,
    model: nn.Module,
    replaced: list[Replaced],
    decayed: set[nn.Parameter],
    momentum: Momentum = "fresh",
) -> None:
    """Put the factors in the place of the dense weights that the optimizer holds; if it has them, do nothing.

    A group whose parameters are in the model's order stays so: groups that are made anew from the low-rank
    model, as after a restart, are the same.

    Args:
        optimizer: Any torch optimizer that has one state a parameter.
        model: The low-rank model.
        replaced: What the switch has replaced.
        decayed: The factors under Frobenius decay: they go to a group without weight decay.
        momentum: `fresh`: the factors start without state. `projected`: with the dense weight's momentum seen
            through the other factor, M·V for U and Uᵀ·M for Vᵀ, and its second moments likewise.

    Raises:
        CuttlefishError: It holds neither a replaced weight nor a factor, or has no group for the factors
            under Frobenius decay. Nothing is changed then.
    """
    if momentum not in ("fresh", "projected"):
        raise CuttlefishError(f"momentum={momentum!r} must be fresh or projected.")
    moves = _moves(optimizer, replaced, decayed)
    order = {id(parameter): index for index, parameter in enumerate(model.parameters())}
    order |= {id(old): min(order[id(new)] for new in entry.new.values()) for entry, old, _, _ in moves}
    ordered = [group for group in optimizer.param_groups if _is_ordered(group, order)]
    for entry, old, group, home in moves:
        _exchange(group, home, old, entry.new)
        _extend(_without_decay(optimizer, group) or group, entry.added)
        _carry_state(optimizer.state, entry, old, momentum)
    for group in ordered:
        _sort(group, order)


def _moves(
    optimizer: Optimizer, replaced: list[Replaced], decayed: set[nn.Parameter]
) -> list[tuple[Replaced, nn.Parameter, Group, Group]]:
    """Return what was replaced, the old parameter, its group and that of the new ones."""
    held = _groups_by_parameter(optimizer)
    moves = []
    for entry in replaced:
        old = entry.parameter()
        group = held.get(id(old))
        if old is not None and group is not None:
            moves.append((entry, old, group, _home(optimizer, group, entry, decayed)))
    in_step = any(id(parameter) in held for entry in replaced for parameter in entry.new.values())
    if not moves and not in_step:
        raise CuttlefishError(
            f"the {type(optimizer).__name__} holds none of the weights that the switch has replaced and no "
            "factor: it is not the one that trained this model"
        )
    return moves


def _groups_by_parameter(optimizer: Optimizer) -> dict[int, Group]:
    if isinstance(optimizer, torch.optim.LBFGS):
        raise CuttlefishError("LBFGS has one state for all parameters and cannot follow: make a new one.")
    return {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}


def _home(optimizer: Optimizer, group: Group, entry: Replaced, decayed: set[nn.Parameter]) -> Group:
    """Return the group that the new parameters go to."""
    if not group.get("weight_decay") or not decayed.intersection(entry.new.values()):
        return group
    return _require_home(optimizer, group, entry.name)


def _require_home(optimizer: Optimizer, group: Group, name: str) -> Group:
    home = _without_decay(optimizer, group)
    if home is None:
        raise CuttlefishError(
            f"{name} comes under Frobenius decay, and the {type(optimizer).__name__} has no group "
            "with weight_decay=0 and the same learning rate to put its factors into: make it from "
            "cf.param_groups(weight_decay) in the first place"
        )
    return home


def _without_decay(optimizer: Optimizer, like: Group) -> Group | None:
    """Return a group without weight decay that has the learning rate of another one."""
    groups = (group for group in optimizer.param_groups if group["lr"] == like["lr"])
    return next((group for group in groups if not group.get("weight_decay")), None)


def _exchange(group: Group, home: Group, old: nn.Parameter, new: dict[str, nn.Parameter]) -> None:
    index = next(i for i, parameter in enumerate(group["params"]) if parameter is old)
    if home is group:
        group["params"][index : index + 1] = new.values()
        if "param_names" in group:
            group["param_names"][index : index + 1] = new
        return
    del group["params"][index]
    if "param_names" in group:
        del group["param_names"][index]
    _extend(home, new)


def _is_ordered(group: Group, order: dict[int, int]) -> bool:
    places = [order.get(id(parameter), -1) for parameter in group["params"]]
    return -1 not in places and places == sorted(places)


def _sort(group: Group, order: dict[int, int]) -> None:
    places = [order[id(parameter)] for parameter in group["params"]]
    for key in ("params", "param_names"):
        if key in group:
            group[key][:] = [
                value for _, value in sorted(zip(places, group[key], strict=True), key=lambda p: p[0])
            ]


def _extend(group: Group, new: dict[str, nn.Parameter]) -> None:
    group["params"].extend(new.values())
    if "param_names" in group:
        group["param_names"].extend(new)


def _carry_state(state: dict[Any, Any], entry: Replaced, old: nn.Parameter, momentum: Momentum) -> None:
    past = state.pop(old, None)
    if not past:
        return
    if entry.layer is None:  # a bias is the same tensor under another name
        (new,) = entry.new.values()
        state[new] = past
    elif momentum == "projected":
        for parameter, projected in _projected(entry.layer, past).items():
            state[parameter] = projected


def _projected(layer: LowRankLayer, past: dict[str, Any]) -> dict[Tensor, dict[str, Any]]:
    """Return the states of both factors: first moments by M·V and Uᵀ·M, second ones by squared factors."""
    U, Vt = layer.factors()
    states: dict[Tensor, dict[str, Any]] = {layer.second.weight: {}, layer.first.weight: {}}
    for key, value in past.items():
        parts = (value, value)
        if isinstance(value, Tensor) and value.shape == layer.weight_shape:
            M = unroll(value, layer.scheme)
            left, right = (U.square(), Vt.square()) if _is_second_moment(key) else (U, Vt)
            parts = layer.shaped(M @ right.T.to(M), left.T.to(M) @ M)
        for factor, part in zip(states, parts, strict=True):
            same = isinstance(part, Tensor)
            states[factor][key] = part.clone(memory_format=torch.preserve_format) if same else part
    return states


def _is_second_moment(key: str) -> bool:
    return "sq" in key or "square" in key or key == "sum"
