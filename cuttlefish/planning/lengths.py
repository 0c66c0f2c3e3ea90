"""Number of epochs of described runs, all phases together, as their methods plan them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cuttlefish.errors import CuttlefishError
from cuttlefish.evidence.admission import EPOCHS, scale_of
from cuttlefish.evidence.selection import Where, at_scale
from cuttlefish.planning.cache import Words, kept
from cuttlefish.planning.spec import Scale

ROOT = Path(__file__).resolve().parents[2]
"""The folder that contains conf/."""


def lengths(arms: Sequence[Where], scale: str, scales: Mapping[str, Scale]) -> list[int]:
    """Return the epochs of a run of each description at a scale; the fewest if several presets count.

    The epochs are those of the scale's recipe if only the model decides, and 0 for data without a recipe in
    the paper.

    Args:
        scales: From tables.yaml: how runs are started at each scale.
    """
    words = scales[scale].words if scale in scales else []
    arms = [at_scale(arm, scale) for arm in arms]
    commands = [list(_commands(arm, scale, words)) for arm in arms]
    planned = kept(ROOT, [command for found in commands for command in found], _planned)
    usual = [next(iter(scale_of(scale, str(arm.get("data")), "").get(EPOCHS, [])), 0) for arm in arms]
    return [
        min((planned[command]["epochs"] or length for command in found), default=length)
        for found, length in zip(commands, usual, strict=True)
    ]


def _commands(arm: Where, scale: str, words: Sequence[str]) -> Iterator[Words]:
    """Return run.py's arguments for each preset that counts; none for data without a recipe in the paper."""
    if not scale_of(scale, str(arm.get("data")), "").get(EPOCHS):
        return
    chosen = [f"{name}={arm[name]}" for name in ("model", "data", "method") if name in arm]
    preset = arm.get("preset")
    for one in preset if isinstance(preset, list) else [preset]:
        yield (*chosen, *([f"preset={one}"] if one else []), *words, "epochs")


def _planned(command: Words) -> dict[str, int | None]:
    from cuttlefish.config.compose import compose_config  # Hydra
    from cuttlefish.methods import planned_epochs  # torch

    try:
        config = compose_config(ROOT / "conf", command[:-1])
        return {"epochs": planned_epochs(config.method, config.recipe)}
    except CuttlefishError:
        return {"epochs": None}  # not a valid run: it has no length, but still gets a verdict
