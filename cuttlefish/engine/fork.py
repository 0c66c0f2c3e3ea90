"""Start an arm from another run's state before its switch, so that differences between arms are paired."""

from pathlib import Path
from typing import Any

from cuttlefish.config.resolved import RESOLVED, load
from cuttlefish.config.schema import Config
from cuttlefish.config.validate import to_dict
from cuttlefish.engine.checkpoint import BEFORE_SWITCH, after_whole_epochs, load_checkpoint
from cuttlefish.errors import CuttlefishError
from cuttlefish.methods.base import Method

SHARED = ("model", "data", "recipe", "seed")
"""What an arm must have in common with the run it starts from."""


def fork_state(source: Path, config: Config, method: Method) -> tuple[dict[str, Any], str]:
    """A checkpoint to start from and the run key it came from.

    source: a run folder (its state before the switch, or its newest) or a checkpoint in one. The method's own state is taken
    over where both arms have the same method. Raises CuttlefishError if the state does not fit.
    """
    folder, path = _locate(source)
    state = load_checkpoint(path)
    origin = load(folder / RESOLVED)
    mine = to_dict(config)
    for part in SHARED:
        if origin.get(part) != mine[part] and not _differ_in_paths_only(part, origin.get(part), mine[part]):
            raise CuttlefishError(
                f"fork_from={source}: that run's {part} differs from this one's, so its state does not fit"
            )
    if state["progress"]["phase"] != 0 or state["method"].get("switch_epoch") is not None:
        raise CuttlefishError(
            f"fork_from={source}: its checkpoint lies behind its switch; there is no earlier one to start from"
        )
    if state["method_name"] != method.name:
        # Of another method's state only the rank history means the same.
        state["method"] = {key: value for key, value in state["method"].items() if key == "history"}
    return state, origin["run_key"]


def _locate(source: Path) -> tuple[Path, Path]:
    if source.is_file():
        return source.parent.parent, source
    checkpoints = source / "checkpoints"
    found = (
        [checkpoints / BEFORE_SWITCH]
        if (checkpoints / BEFORE_SWITCH).exists()
        else after_whole_epochs(checkpoints)
    )
    if not found:
        raise CuttlefishError(
            f"fork_from={source}: there is no checkpoint, neither a file nor a run folder with one"
        )
    return source, found[-1]


def _differ_in_paths_only(part: str, theirs: Any, mine: Any) -> bool:
    drop = {"root", "download", "verify", "name"}
    return part in ("data", "recipe") and {k: v for k, v in theirs.items() if k not in drop} == {
        k: v for k, v in mine.items() if k not in drop
    }
