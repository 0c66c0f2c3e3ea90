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
MAGIC = b"cuttlefish checkpoint 1\n"


def save_checkpoint(folder: Path, number: int, state: dict[str, Any]) -> Path:
    """Write `folder`/epoch_<number>.pt and drop all but the last two. state: tensors and plain containers only."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"epoch_{number:05d}.pt"
    write_atomic(path, MAGIC + hashlib.sha256(payload).digest() + payload)
    for old in _numbered(folder)[:-KEEP]:
        old.unlink()
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Raises CuttlefishError for a file that is missing, cut short, altered or no checkpoint."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CuttlefishError(f"cannot read checkpoint {path}: {error.strerror}") from error
    head = len(MAGIC) + hashlib.sha256().digest_size
    digest, payload = content[len(MAGIC) : head], content[head:]
    if not content.startswith(MAGIC) or hashlib.sha256(payload).digest() != digest:
        raise CuttlefishError(f"{path} is damaged or no checkpoint of this suite: its checksum does not match")
    return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)


def newest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest sound checkpoint of a folder; damaged ones are named in a warning and passed over."""
    for path in reversed(_numbered(folder)):
        try:
            return load_checkpoint(path)
        except CuttlefishError as error:
            logger.warning("%s; falling back to the one before", error)
    return None


def keep_before_switch(folder: Path) -> None:
    """Keep the newest checkpoint under a name of its own: the state that other arms can fork from."""
    numbered = _numbered(folder)
    if numbered and not (folder / BEFORE_SWITCH).exists():
        os.link(numbered[-1], folder / BEFORE_SWITCH)


def _numbered(folder: Path) -> list[Path]:
    return sorted(folder.glob("epoch_*.pt"))
