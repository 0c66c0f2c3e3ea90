"""Cache compositions between commands while conf/ and the code stay unchanged."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cuttlefish.record.atomic import write_atomic
from cuttlefish.record.cache import cache_folder

ROOMS = ("auto", "config", "lowrank", "methods", "models", "planning", "record", "tasks")
SOURCES = (
    "conf/**/*.yaml",
    "cuttlefish/*.py",
    "baselines/**/*.py",
    *(f"cuttlefish/{room}/**/*.py" for room in ROOMS),
)
Words = tuple[str, ...]


def kept(
    root: Path,
    wanted: Sequence[Words],
    make: Callable[[Words], Mapping[str, Any]],
    folder: Path | None = None,
) -> dict[Words, Any]:
    """Return make(words) for each item, read from the cache if the fingerprint of `root` is unchanged.

    A cache file that is missing, damaged or not writable only costs the time of composing again.
    """
    file = (folder or cache_folder()) / "compositions.json"
    current = fingerprint(root)
    known = _read(file, current)
    missing = [words for words in dict.fromkeys(wanted) if words not in known]
    for words in missing:
        known[words] = json.loads(json.dumps(make(words)))
    if missing:
        _write(file, current, known)
    return {words: known[words] for words in wanted}


def fingerprint(root: Path) -> str:
    """Return the SHA-256 (hex) of the names and contents of all configs and code."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in root.glob(pattern)):
        digest.update(f"{path.relative_to(root)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _read(file: Path, current: str) -> dict[Words, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        entries = content["entries"] if content["fingerprint"] == current else []
        return {tuple(words): entry for words, entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write(file: Path, current: str, known: Mapping[Words, Any]) -> None:
    try:
        write_atomic(file, json.dumps({"fingerprint": current, "entries": list(known.items())}))
    except OSError:
        pass  # a read-only home must not prevent collating
