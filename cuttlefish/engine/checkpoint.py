"""Checkpoints: atomic, durable, checked, the last two kept; a damaged newest falls back to the one before, and nothing else does."""

import hashlib
import io
import logging
import os
import re
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
    """A file that was read, and is not what was once written."""


def save_checkpoint(folder: Path, epochs: int, state: dict[str, Any], step: int | None = None) -> Path:
    """Write the state after `epochs` trained epochs (and `step` steps of the next one); it and the one before are kept.

    state: tensors and plain containers only. Raises CuttlefishError where it cannot be written; the old ones are then intact.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    path = folder / (f"epoch_{epochs:05d}.pt" if step is None else f"epoch_{epochs:05d}_step_{step:06d}.pt")
    _write(path, MAGIC + hashlib.sha256(payload).digest() + payload)
    _drop_all_but(path)
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Raises Damaged for a file that is cut short, altered or no checkpoint; CuttlefishError if it is another version's or cannot be read."""
    content = _read(path)
    if ANY_VERSION.match(content) and not content.startswith(MAGIC):
        raise CuttlefishError(
            f"{path} was written by another version of this suite; use that version, or remove it to start again"
        )
    head = len(MAGIC) + hashlib.sha256().digest_size
    digest, payload = content[len(MAGIC) : head], content[head:]
    if not content.startswith(MAGIC) or hashlib.sha256(payload).digest() != digest:
        raise Damaged(f"{path} is damaged or no checkpoint of this suite: its checksum does not match")
    return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)


def newest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest sound checkpoint, or None if there is none of any kind. Looks and changes nothing.

    Damaged ones are named in a warning and passed over. Raises CuttlefishError if all are damaged, or one that is reached is another
    version's or cannot be read: to begin again would end in the loss of what is there.
    """
    there = _in_order(folder)
    for path in reversed(there):
        try:
            return load_checkpoint(path)
        except Damaged as error:
            logger.warning("%s; falling back to the one before", error)
    if there:
        raise CuttlefishError(
            f"every checkpoint in {folder} is damaged: remove that folder to start the run again"
        )
    return None


def keep_before_switch(folder: Path) -> None:
    """Keep the newest checkpoint of whole epochs under a name of its own: the state that other arms can fork from."""
    whole, kept = after_whole_epochs(folder), folder / BEFORE_SWITCH
    if not whole or kept.exists():
        return
    try:
        os.link(whole[-1], kept)
    except OSError:  # not every file system has hard links
        _write(kept, _read(whole[-1]))


def after_whole_epochs(folder: Path) -> list[Path]:
    """The checkpoints that were not written within an epoch, oldest first."""
    return [path for path in _in_order(folder) if "_step_" not in path.name]


def _in_order(folder: Path) -> list[Path]:
    """Oldest first; by name, in which `.` comes before `_`. A folder that cannot be read is no empty one, as `glob` has it."""
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
    """Keep `newest` and the one before. Any that would come after it are damaged: the run has been resumed from an earlier one."""
    there = _in_order(newest.parent)
    place = there.index(newest)
    for path in there[: max(place + 1 - KEEP, 0)] + there[place + 1 :]:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:  # it costs room, and nothing else
            logger.warning("cannot remove the old checkpoint %s: %s", path, error.strerror)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CuttlefishError(
            f"cannot read checkpoint {path}: {error.strerror}; once it can be read, run the same command again"
        ) from error


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomic(path, content)
    except OSError as error:
        raise CuttlefishError(
            f"cannot write checkpoint {path}: {error.strerror}; the last one is intact, so make room (or the folder writable) and run the same "
            "command again"
        ) from error
