"""How many epochs a run of a claim takes, all phases together."""

from typing import Any

from cuttlefish.evidence.admission import EPOCHS, scale_of
from cuttlefish.evidence.selection import Where

OWN: list[tuple[dict[str, Any], int]] = [
    ({"method": "lc", "preset": "reference", "model": "resnet18"}, 1135),
    ({"method": "lc", "preset": "reference", "model": "vgg19"}, 1485),
    ({"method": "imp", "preset": "reference"}, 1392),
    ({"method": "imp", "preset": "default", "scale": "paper"}, 2652),
    ({"method": "imp", "preset": "default", "scale": "reduced"}, 246),
]
"""Where the method's recipe is longer than the scale's. IMP: eight levels."""


def epochs_of(where: Where, scale: str) -> int:
    """Of several presets that count, the shortest; of data without a recipe of the paper, 0."""
    run = {
        name: value.get(scale) if isinstance(value, dict) else value
        for name, value in {**where, "scale": scale}.items()
    }
    presets = run.get("preset") if isinstance(run.get("preset"), list) else [run.get("preset")]
    usual = [*scale_of(scale, str(run.get("data")), "").get(EPOCHS, []), 0][0]
    return min(_own({**run, "preset": preset}) or usual for preset in presets)


def _own(run: dict[str, Any]) -> int | None:
    return next(
        (
            epochs
            for fields, epochs in OWN
            if fields.items() <= {name: str(value) for name, value in run.items()}.items()
        ),
        None,
    )
