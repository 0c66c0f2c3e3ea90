"""Start a run from another run's state before its switch, so that the two can be compared in pairs."""

from pathlib import Path
from typing import Any

from cuttlefish.config.resolved import RESOLVED, load
from cuttlefish.config.validate import to_dict
from cuttlefish.engine.checkpoint import BEFORE_SWITCH, after_whole_epochs, load_checkpoint
from cuttlefish.engine.run import Run
from cuttlefish.errors import CuttlefishError
from cuttlefish.limits import shown

SHARED = ("model", "data", "recipe", "seed")
"""Sections of the config that must equal those of the run it starts from."""
LABELS_AND_PATHS = {"root", "download", "verify", "name"}


def fork_state(run: Run) -> tuple[dict[str, Any], str]:
    """Read the state at `run.config.fork_from`.

    This is a checkpoint or a run folder, of which the state before the switch is used, else the newest. The
    method's own state is kept if both runs have the same method.

    Returns:
        The checkpoint to start from, and the key of the run that wrote it.

    Raises:
        CuttlefishError: The state does not fit.
    """
    source = Path(run.config.fork_from)
    folder, path = _locate(source)
    origin, mine = load(folder / RESOLVED), to_dict(run.config)
    other = origin["method"]["name"]
    if run.method.no_fork and other != run.method.name:
        raise CuttlefishError(
            f"fork_from={source}: {run.method.name} {run.method.no_fork}, "
            f"so it cannot start from a run of {other}"
        )
    for section in SHARED:
        if not _same(section, origin.get(section), mine[section]):
            raise CuttlefishError(
                f"fork_from={source}: that run's {section} differs from this one's, so its state does not fit"
            )
    state = load_checkpoint(path)
    key = (state.get("run") or {}).get("run_key", origin["run_key"])
    if key != origin["run_key"]:
        raise CuttlefishError(
            f"fork_from={source}: {path.name} is of run {key}, and that folder of {origin['run_key']}"
        )
    if state["progress"]["phase"] != 0 or state["method"].get("switch_epoch") is not None:
        raise CuttlefishError(
            f"fork_from={source}: its checkpoint lies behind its switch; there is no earlier one"
        )
    theirs, ours = origin["method"].get("interval"), run.config.method.get("interval")
    if state["method"].get("history") and theirs != ours:
        raise CuttlefishError(
            f"fork_from={source}: that run measured its ranks with method.interval={shown(theirs)} and this "
            f"one has {shown(ours)}; take the same"
        )
    if state["method_name"] != run.method.name:
        # Only the rank history has the same meaning in every method's state.
        state["method"] = {
            key: state["method"][key] for key in ("history", "metric") if key in state["method"]
        }
    state["method"].pop("settings", None)  # the new run has its own settings
    return state, origin["run_key"]


def _locate(source: Path) -> tuple[Path, Path]:
    if source.is_file():
        return source.parent.parent, source
    checkpoints = source / "checkpoints"
    before = checkpoints / BEFORE_SWITCH
    found = [before] if before.exists() else after_whole_epochs(checkpoints)
    if not found:
        raise CuttlefishError(
            f"fork_from={source}: there is no checkpoint, neither a file nor a run folder with one"
        )
    return source, found[-1]


def _same(section: str, theirs: Any, mine: Any) -> bool:
    if section not in ("data", "recipe") or theirs is None:
        return theirs == mine
    return {k: v for k, v in theirs.items() if k not in LABELS_AND_PATHS} == {
        k: v for k, v in mine.items() if k not in LABELS_AND_PATHS
    }
