"""Checkpoints: written atomically, verified when read, the last two kept.

If the newest one is damaged or belongs to another run, the one before it is used.
"""

import hashlib
import io
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cuttlefish.errors import CuttlefishError
from cuttlefish.record.atomic import write_atomic

logger = logging.getLogger("cuttlefish")
KEEP = 2
BEFORE_SWITCH = "before_switch.pt"
FAMILY = b"cuttlefish checkpoint "
MAGIC = FAMILY + b"1\n"
ANY_VERSION = re.compile(FAMILY + rb"\d+\n")


class Damaged(CuttlefishError):
    """A file that can be read but is not an intact checkpoint of this run."""


def save_checkpoint(folder: Path, epochs: int, state: dict[str, Any], step: int | None = None) -> Path:
    """Write the state after `epochs` trained epochs (and `step` steps of the next); keep the last two files.

    Args:
        state: Tensors and plain containers only. `newest_checkpoint` compares its entry `run`.

    Raises:
        CuttlefishError: It cannot be written. The old ones stay intact.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    path = folder / (f"epoch_{epochs:05d}.pt" if step is None else f"epoch_{epochs:05d}_step_{step:06d}.pt")
    _write(path, MAGIC + hashlib.sha256(payload).digest() + payload)
    _drop_all_but(path)
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        Damaged: The file is truncated, altered or not a checkpoint.
        CuttlefishError: It has another format version, or cannot be read.
    """
    if path.exists() and not path.is_file():
        raise Damaged(f"{path} is no file, so no checkpoint")
    content = _read(path)
    if ANY_VERSION.match(content) and not content.startswith(MAGIC):
        raise CuttlefishError(
            f"{path} was written by another version of this suite; use that version, or remove it to start "
            "again"
        )
    head = len(MAGIC) + hashlib.sha256().digest_size
    digest, payload = content[len(MAGIC) : head], content[head:]
    if not content.startswith(MAGIC) or hashlib.sha256(payload).digest() != digest:
        raise Damaged(f"{path} is damaged or no checkpoint of this suite: its checksum does not match")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # an arbitrary pickle can raise anything
        raise Damaged(f"{path} is no checkpoint of this suite: {_first_line(error)}") from None
    if not isinstance(state, dict):
        raise Damaged(f"{path} is no checkpoint of this suite: it holds a {type(state).__name__}")
    return state


def newest_checkpoint(folder: Path, run: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Read the newest intact checkpoint, or return None if there is no checkpoint. Changes no file.

    Args:
        run: The run's identity (its key, data and seed). A checkpoint of another run is skipped with a
            warning, like a damaged one; one without an identity (older format) is accepted.

    Raises:
        CuttlefishError: None is intact, or one has another version or cannot be read. Starting afresh would
            overwrite the existing files.
    """
    there, foreign = _in_order(folder), False
    for path in reversed(there):
        try:
            state = load_checkpoint(path)
        except Damaged as error:
            logger.warning("%s; falling back to the one before", error)
            continue
        unlike = _unlike(state.get("run"), run)
        if not unlike:
            return state
        foreign = True
        logger.warning("%s is another run's (%s); falling back to the one before", path, unlike)
    if there:
        what = "damaged or another run's" if foreign else "damaged"
        raise CuttlefishError(
            f"every checkpoint in {folder} is {what}: remove that folder to start the run again"
        )
    return None


def _unlike(found: Any, run: Mapping[str, Any] | None) -> str:
    if not isinstance(found, Mapping) or run is None:
        return ""
    pairs = [(name, found.get(name), value) for name, value in run.items()]
    return ", ".join(f"{name.replace('_', ' ')} {a}, here {b}" for name, a, b in pairs if a != b)


@contextmanager
def explain_misfit(folder: Path) -> Iterator[None]:
    """Raise a CuttlefishError if restoring an intact checkpoint of this run fails."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, CuttlefishError, LookupError, TypeError, ValueError, RuntimeError) as error:
        kind = "" if isinstance(error, CuttlefishError) else f"{type(error).__name__}: "
        raise CuttlefishError(
            f"the checkpoint in {folder} does not fit this run "
            f"({kind}{_first_line(error)}): remove that folder to start the run again"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]


def keep_before_switch(folder: Path) -> None:
    """Keep the newest checkpoint of whole epochs under a separate name, for other runs to fork from."""
    whole, kept = after_whole_epochs(folder), folder / BEFORE_SWITCH
    if not whole or kept.exists():
        return
    try:
        os.link(whole[-1], kept)
    except OSError:  # not every file system has hard links
        _write(kept, _read(whole[-1]))


def after_whole_epochs(folder: Path) -> list[Path]:
    """List the checkpoints that were written between epochs, oldest first."""
    return [path for path in _in_order(folder) if "_step_" not in path.name]


def _in_order(folder: Path) -> list[Path]:
    """List checkpoints by name, which is oldest first because `.` sorts before `_`.

    Raises for an unreadable folder, which `glob` would treat as empty.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CuttlefishError(
            f"cannot read {folder}: {error.strerror}; once it can be read, run the same command again"
        ) from error
    return sorted(folder / name for name in names if name.startswith("epoch_") and name.endswith(".pt"))


def _drop_all_but(newest: Path) -> None:
    """Keep `newest` and the one before it.

    Later ones are damaged: the run was resumed from an earlier checkpoint.
    """
    there = _in_order(newest.parent)
    place = there.index(newest)
    for path in there[: max(place + 1 - KEEP, 0)] + there[place + 1 :]:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:  # this only costs disk space
            logger.warning("cannot remove the old checkpoint %s: %s", path, error.strerror)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CuttlefishError(
            f"cannot read checkpoint {path}: {error.strerror}; once it can be read, run the same command "
            "again"
        ) from error


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomic(path, content)
    except OSError as error:
        raise CuttlefishError(
            f"cannot write checkpoint {path}: {error.strerror}; the last one is intact, so make room (or the "
            "folder writable) and run the same command again"
        ) from error
