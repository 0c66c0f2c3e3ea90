"""Start a run from another run's state before its switch, so that the two can be compared in pairs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cuttlefish.config.resolved import RESOLVED, load
from cuttlefish.config.validate import to_dict
from cuttlefish.engine.run import Run
from cuttlefish.engine.saving.checkpoint import BEFORE_SWITCH, after_whole_epochs, load_checkpoint
from cuttlefish.errors import CuttlefishError
from cuttlefish.limits import shown
from cuttlefish.record.folder import check_origin

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
    origin = load(folder / RESOLVED)
    _refuse(source, _differences(run, origin))
    state = load_checkpoint(path)
    _refuse(source, _misfits(run, origin, state, path.name))
    if state["method_name"] != run.method.name:
        # Only the rank history has the same meaning in every method's state.
        state["method"] = {
            key: state["method"][key] for key in ("history", "metric") if key in state["method"]
        }
    state["method"].pop("settings", None)  # the new run has its own settings
    return state, origin["run_key"]


def _refuse(source: Path, reasons: Iterator[str]) -> None:
    """Raise CuttlefishError for the first reason, if there is one."""
    for reason in reasons:
        raise CuttlefishError(f"fork_from={source}: {reason}")


def _differences(run: Run, origin: Mapping[str, Any]) -> Iterator[str]:
    """Yield reasons why a run of another config cannot start from the one resolved in `origin`."""
    other, mine = origin["method"]["name"], to_dict(run.config)
    if run.method.no_fork and other != run.method.name:
        yield f"{run.method.name} {run.method.no_fork}, so it cannot start from a run of {other}"
    for section in SHARED:
        if not _same(section, origin.get(section), mine[section]):
            yield f"that run's {section} differs from this one's, so its state does not fit"


def _misfits(run: Run, origin: Mapping[str, Any], state: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield reasons why a run cannot start from this checkpoint, whose file has this name."""
    key = (state.get("run") or {}).get("run_key", origin["run_key"])
    if key != origin["run_key"]:
        yield f"{name} is of run {key}, and that folder of {origin['run_key']}"
    if state["progress"]["phase"] != 0 or state["method"].get("switch_epoch") is not None:
        yield "its checkpoint lies behind its switch; there is no earlier one"
    theirs, ours = origin["method"].get("interval"), run.config.method.get("interval")
    if state["method"].get("history") and theirs != ours:
        yield (
            f"that run measured its ranks with method.interval={shown(theirs)} and this one has "
            f"{shown(ours)}; take the same"
        )


def _locate(source: Path) -> tuple[Path, Path]:
    check_origin(source)
    if source.is_file():
        return source.parent.parent, source
    checkpoints = source / "checkpoints"
    before = checkpoints / BEFORE_SWITCH
    found = [before] if before.exists() else after_whole_epochs(checkpoints)
    if not found:
        raise CuttlefishError(f"fork_from={source}: the folder has no checkpoint of whole epochs")
    return source, found[-1]


def _same(section: str, theirs: Any, mine: Any) -> bool:
    if section not in ("data", "recipe") or theirs is None:
        return theirs == mine
    return all(
        theirs.get(key) == mine.get(key) for key in theirs.keys() | mine.keys() if key not in LABELS_AND_PATHS
    )
