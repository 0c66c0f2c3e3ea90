"""An optimizer follows the switch in place: its class, groups and other parameters' states stay."""

import logging
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cuttlefish.auto.switch import Replaced
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.layers import LowRankLayer
from cuttlefish.lowrank.matrix import unroll

logger = logging.getLogger("cuttlefish")

Momentum = Literal["fresh", "projected"]
Group = dict[str, Any]
Move = tuple[Replaced, nn.Parameter, Group, Group]
"""What was replaced, the old parameter, its group and that of the new ones."""
FIRST = {"momentum_buffer", "exp_avg"}
"""What optimizers call means of gradients, which are linear in them."""
SECOND = {"exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum"}
"""What they call means or sums of squared gradients."""


def check_can_follow(
    optimizer: Optimizer, model: nn.Module, layers: list[str], decayed: bool, momentum: Momentum
) -> None:
    """Raise CuttlefishError, before anything has changed, if an optimizer cannot follow the switch.

    Args:
        optimizer: That of the dense weights.
        model: The full-rank model.
        layers: Those that will be factorized.
        decayed: Whether their factors will be under Frobenius decay.
        momentum: What is asked for, as by `follow_switch`.
    """
    _check_momentum(momentum)
    held = _held(optimizer, model)
    for name in layers:
        group = held.get(id(model.get_submodule(name).weight))
        if decayed and group is not None and group.get("weight_decay"):
            _require_home(optimizer, group, f"{name}.weight")


def _check_momentum(momentum: str) -> None:
    if momentum not in ("fresh", "projected"):
        raise CuttlefishError(f"momentum={momentum!r} must be fresh or projected.")


@torch.no_grad()
def follow_switch(
    optimizer: Optimizer,
    model: nn.Module,
    replaced: list[Replaced],
    decayed: set[nn.Parameter],
    momentum: Momentum = "fresh",
) -> None:
    """Put factors in the place of the dense weights that the optimizer holds, if it still holds any.

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
        CuttlefishError: It holds no parameter of the model, or has no group for factors under Frobenius
            decay. Nothing is changed then.
    """
    _check_momentum(momentum)
    moves = _moves(optimizer, model, replaced, decayed)
    if momentum == "projected" and (key := _unprojectable(optimizer, moves)):
        logger.warning("momentum starts fresh: the %s's %s has no projection", type(optimizer).__name__, key)
        momentum = "fresh"
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
    optimizer: Optimizer, model: nn.Module, replaced: list[Replaced], decayed: set[nn.Parameter]
) -> list[Move]:
    old = [(entry, parameter) for entry in replaced if (parameter := entry.parameter()) is not None]
    held = _held(optimizer, model, [parameter for _, parameter in old])
    return [
        (entry, parameter, group, _home(optimizer, group, entry, decayed))
        for entry, parameter in old
        if (group := held.get(id(parameter))) is not None
    ]


def _held(optimizer: Optimizer, model: nn.Module, old: Iterable[nn.Parameter] = ()) -> dict[int, Group]:
    """Return id → group of the optimizer's parameters; some must be the model's, or old ones of it."""
    if isinstance(optimizer, torch.optim.LBFGS):
        raise CuttlefishError("LBFGS has one state for all parameters and cannot follow: make a new one.")
    held = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    if held.keys().isdisjoint(map(id, (*model.parameters(), *old))):
        raise CuttlefishError(
            f"the {type(optimizer).__name__} holds no parameter of this model: it is not one that trains it"
        )
    return held


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


def _unprojectable(optimizer: Optimizer, moves: list[Move]) -> str | None:
    """Return the name of a state of the dense weights that is no mean of gradients or of their squares."""
    states = (optimizer.state.get(old, {}) for entry, old, _, _ in moves if entry.layer is not None)
    items = (item for state in states for item in state.items() if item[0] not in FIRST | SECOND)
    return next((key for key, value in items if isinstance(value, Tensor) and value.numel() > 1), None)


def _projected(layer: LowRankLayer, past: dict[str, Any]) -> dict[Tensor, dict[str, Any]]:
    """Return the states of both factors: first moments by M·V and Uᵀ·M, second ones by squared factors."""
    U, Vt = layer.factors()
    states: dict[Tensor, dict[str, Any]] = {layer.second.weight: {}, layer.first.weight: {}}
    for key, value in past.items():
        parts = (value, value)
        if isinstance(value, Tensor) and value.shape == layer.weight_shape:
            M = unroll(value, layer.scheme)
            left, right = (U.square(), Vt.square()) if key in SECOND else (U, Vt)
            parts = layer.shaped(M @ right.T.to(M), left.T.to(M) @ M)
        for factor, part in zip(states, parts, strict=True):
            same = isinstance(part, Tensor)
            states[factor][key] = part.clone(memory_format=torch.preserve_format) if same else part
    return states
