"""States of interrupted runs: which settings hold, and whether a rank history fits."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.find import nearest
from cuttlefish.lowrank.rank import RankTracker
from cuttlefish.lowrank.settings import Settings


def checked_state(state: Any) -> Mapping[str, Any]:
    """Return the state, an empty one for None. Raises CuttlefishError for what `state_dict` never returns."""
    if state is not None and not isinstance(state, Mapping):
        raise CuttlefishError(f"state is of type {type(state).__name__}; give what state_dict() has returned")
    return state or {}


def chosen_settings(
    settings: Settings | None, knobs: Mapping[str, Any], saved: Mapping[str, Any] | None
) -> Settings:
    """Return the settings that are given, or those of the state; where both are, they must be the same."""
    known = [field.name for field in fields(Settings)]
    for name in knobs:
        if name not in known:
            raise CuttlefishError(f"Cuttlefish has no setting {name!r}{nearest(name, known)}.")
    if settings is not None and knobs:
        raise CuttlefishError(f"{min(knobs)} is given beside settings=: put it into the settings.")
    saved = {name: value for name, value in (saved or {}).items() if name in known}
    if settings is None and not knobs:
        return Settings(**saved)
    settings = settings or Settings(**knobs)
    for name, value in saved.items():
        mine = getattr(settings, name)
        if json.dumps(mine, sort_keys=True) != json.dumps(value, sort_keys=True) and mine != value:
            raise CuttlefishError(
                f"the state was made with {name}={value}, not {mine}: "
                "give the same settings, or none to take the state's"
            )
    return settings


def check_history(tracker: RankTracker, state: Mapping[str, Any]) -> None:
    """Raise CuttlefishError if a state lacks a tracked layer's history or has another metric's."""
    missing = tracker.history.keys() - state.get("history", {}).keys()
    if missing:
        raise CuttlefishError(
            f"the state has no rank history of layer {min(missing)}: it must come from cuttlefish with "
            "the same K, or from full_rank with track_ranks=true"
        )
    metric = state.get("metric", "stable")
    if tracker.history and metric != tracker.metric:
        raise CuttlefishError(
            f"the state's rank history is of the metric {metric}, not {tracker.metric}: "
            "go on with the same one"
        )
