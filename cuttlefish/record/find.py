"""Find a record's file by its path, its run folder or its run key."""

import re
from pathlib import Path

from cuttlefish.errors import CuttlefishError
from cuttlefish.record.fields import Record
from cuttlefish.record.folder import RECORD
from cuttlefish.record.record import read_record

SEARCHED = ("results/records", "runs")


def find_record(word: str) -> Path:
    """Return the path of a `record.json`. Raises CuttlefishError if there is none or a key is ambiguous."""
    path = Path(word)
    if path.is_file() or (path / RECORD).is_file():
        return path if path.is_file() else path / RECORD
    if not re.fullmatch(r"[0-9a-f]{12}", word):
        raise CuttlefishError(
            f"{word}: neither a record, nor a folder with one, nor a run key of 12 hexadecimal digits"
        )
    found = {record.started: path for path, record in runs_of(word)}
    if not found:
        raise CuttlefishError(f"{word}: no record under {' or '.join(SEARCHED)} has this run key")
    if len(found) > 1:
        folders = ", ".join(str(path.parent) for path in found.values())
        raise CuttlefishError(f"{word}: several runs have this key; give one of {folders}")
    return next(iter(found.values()))


def runs_of(key: str) -> list[tuple[Path, Record]]:
    """Return all valid records of a run key, those of the first folder last; skip damaged records."""
    found = []
    for path in (path for folder in reversed(SEARCHED) for path in sorted(Path(folder).rglob(RECORD))):
        try:
            record = read_record(path)
        except CuttlefishError:
            continue
        if record.run_key == key:
            found.append((path, record))
    return found
