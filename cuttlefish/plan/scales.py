"""What a scale leaves out: the values that tables.yaml narrows an axis to there."""

from collections.abc import Mapping
from pathlib import Path

from cuttlefish.evidence.selection import Where
from cuttlefish.plan.spec import read_scales

Sweeps = Mapping[str, Mapping[str, list[str]]]
"""By scale and axis (`data`), what can be run."""


def sweeps_of(file: Path) -> Sweeps:
    """Of tables.yaml; nothing where there is no such file."""
    return {name: scale.sweep for name, scale in read_scales(file).items() if scale.sweep}


def left_out(where: Where, scale: str, sweeps: Sweeps) -> str:
    """`cifar100`: the value of the description for which this scale has no runs; empty where it has all."""
    swept = sweeps.get(scale, {})
    return next(
        (
            str(where[axis])
            for axis, values in swept.items()
            if isinstance(where.get(axis), str) and where[axis] not in values
        ),
        "",
    )
