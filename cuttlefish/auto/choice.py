"""Which layers are factorized (K), and why the others stay dense."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from cuttlefish.lowrank.path import candidates, is_transformer, why_dense
from cuttlefish.lowrank.settings import Settings
from cuttlefish.lowrank.trace import TracedLayer


@dataclass(frozen=True)
class Choice:
    """What is decided before training.

    k: K. layers: those to factorize. spared: those that `Settings.dense` keeps from it. shortcuts: the 1×1
    convolutions beside the main path. watched: the layers whose ranks are measured. reasons: executed layer →
    why it stays dense. profile: the stack profile, if one was measured.
    """

    k: int
    layers: list[str]
    spared: list[str] = field(default_factory=list)
    shortcuts: list[str] = field(default_factory=list)
    watched: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    profile: dict[str, Any] | None = None


def choose_layers(
    model: nn.Module,
    path: list[TracedLayer],
    settings: Settings,
    profile: dict[str, Any] | None,
    measure: Callable[[], dict[str, Any]],
) -> Choice:
    """Decide K and the layers.

    Args:
        model: The full-rank model.
        path: Its main path (`main_path`).
        settings: The knobs.
        profile: A profile measured before.
        measure: Measures one.
    """
    given = settings.k != "profile"
    k, possible = 1, candidates(model, path, 1)
    if given or settings.always_profile or not is_transformer(path, possible):
        if profile is None and (not given or settings.always_profile):
            profile = measure()
        k, possible = _behind(model, path, settings, profile)
    alone = _left_alone(model, possible)
    spared = [name for name in possible if settings.leaves_dense(name) and name not in alone]
    layers = [name for name in possible if name not in alone and name not in spared]
    reasons = why_dense(model, path, layers, k) | _too_slow(settings, profile)
    reasons |= dict.fromkeys(spared, "dense names it") | alone
    shortcuts = [layer.name for layer in path if layer.shortcut]
    watched = _watched(path, settings, {*layers, *(spared if settings.wait_for_dense else ())})
    return Choice(k, layers, spared, shortcuts, watched, reasons, profile)


def saved_choice(state: Mapping[str, Any]) -> Choice:
    """Return the choice that a state holds (`Cuttlefish.state_dict`)."""
    known = {name: state[name] for name in ("k", "layers", "spared", "shortcuts", "profile")}
    return Choice(**known, watched=list(state["history"]), reasons=dict(state["kept_dense"]))


def _behind(
    model: nn.Module, path: list[TracedLayer], settings: Settings, profile: dict[str, Any] | None
) -> tuple[int, list[str]]:
    if settings.k == "profile" and profile is not None:
        return profile["k"], list(profile["layers"])
    k = settings.leading(otherwise=1)
    return k, candidates(model, path, k)


def _left_alone(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Return the layers that training does not own: name → why."""
    reasons = {}
    for name in names:
        if not model.get_submodule(name).weight.requires_grad:
            reasons[name] = "it is frozen"
        elif _is_adapter(model, name):
            reasons[name] = "it is a low-rank adapter's own matrix"
    return reasons


def _is_adapter(model: nn.Module, name: str) -> bool:
    """Return whether a parent keeps this layer under lora_A or lora_B, as peft's adapters do."""
    parts = name.split(".")
    parents = (
        model.get_submodule(".".join(parts[:index])) for index in range(len(parts)) if "lora_" in parts[index]
    )
    return any(hasattr(parent, "lora_A") and hasattr(parent, "lora_B") for parent in parents)


def _too_slow(settings: Settings, profile: dict[str, Any] | None) -> dict[str, str]:
    """Return layer → why, of the stacks that the profile leaves dense."""
    reasons: dict[str, str] = {}
    if profile is None or settings.k != "profile":
        return reasons
    for stack in profile.get("stacks", []):
        if not stack["factorize"]:
            speedup = f"{stack['speedup']:.2f} times as fast at {profile['ratio']} of its rank"
            why = f"its stack {stack['name']} gets {speedup}, and {profile['threshold']} must be passed"
            reasons |= dict.fromkeys(stack["layers"], why)
    return reasons


def _watched(path: list[TracedLayer], settings: Settings, wanted: set[str]) -> list[str]:
    if not settings.track_ranks:
        return []
    return [layer.name for layer in path if settings.track_dense or layer.name in wanted]
