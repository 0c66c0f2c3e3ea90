"""Checkpoints: atomic, durable, checked, the last two kept; a damaged newest falls back to the one before."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from pathlib import Path
from typing import Any

import torch

from cuttlefish.errors import CuttlefishError
from cuttlefish.files import write_atomic

logger = logging.getLogger("cuttlefish")
KEEP = 2
BEFORE_SWITCH = "before_switch.pt"
FAMILY = b"cuttlefish checkpoint "
MAGIC = FAMILY + b"1\n"


def save_checkpoint(folder: Path, epochs: int, state: dict[str, Any], step: int | None = None) -> Path:
    """Write the state after `epochs` trained epochs (and `step` steps of the next one); it and the one before are kept.

    state: tensors and plain containers only. Raises CuttlefishError where it cannot be written; the old ones are then intact.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    path = folder / (f"epoch_{epochs:05d}.pt" if step is None else f"epoch_{epochs:05d}_step_{step:06d}.pt")
    try:
        write_atomic(path, MAGIC + hashlib.sha256(payload).digest() + payload)
    except OSError as error:
        raise CuttlefishError(
            f"cannot write checkpoint {path}: {error.strerror}; the last one is intact, so make room (or the folder writable) and run the same "
            "command again"
        ) from error
    _drop_all_but(path)
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Raises CuttlefishError for a file that is missing, cut short, altered, another version's or no checkpoint."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CuttlefishError(f"cannot read checkpoint {path}: {error.strerror}") from error
    if content.startswith(FAMILY) and not content.startswith(MAGIC):
        raise CuttlefishError(f"{path} was written by another version of this suite; use that version, or remove it to start again")
    head = len(MAGIC) + hashlib.sha256().digest_size
    digest, payload = content[len(MAGIC) : head], content[head:]
    if not content.startswith(MAGIC) or hashlib.sha256(payload).digest() != digest:
        raise CuttlefishError(f"{path} is damaged or no checkpoint of this suite: its checksum does not match")
    return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)


def newest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest sound checkpoint of a folder; damaged ones are named in a warning and passed over."""
    for path in reversed(_in_order(folder)):
        try:
            return load_checkpoint(path)
        except CuttlefishError as error:
            logger.warning("%s; falling back to the one before", error)
    return None


def keep_before_switch(folder: Path) -> None:
    """Keep the newest checkpoint of whole epochs under a name of its own: the state that other arms can fork from."""
    whole = after_whole_epochs(folder)
    if whole and not (folder / BEFORE_SWITCH).exists():
        os.link(whole[-1], folder / BEFORE_SWITCH)


def after_whole_epochs(folder: Path) -> list[Path]:
    """The checkpoints that were not written within an epoch, oldest first."""
    return [path for path in _in_order(folder) if "_step_" not in path.name]


def _in_order(folder: Path) -> list[Path]:
    """Oldest first; by name, in which `.` comes before `_`."""
    return sorted(folder.glob("epoch_*.pt"))


def _drop_all_but(newest: Path) -> None:
    """Keep `newest` and the one before. Any that would come after it are damaged: the run has been resumed from an earlier one."""
    there = _in_order(newest.parent)
    place = there.index(newest)
    for path in there[: max(place + 1 - KEEP, 0)] + there[place + 1 :]:
        path.unlink()
