"""Files that survive a crash: whole or not at all, and on the disk once the call returns.

Used for everything a run must be able to trust after it was killed: its record, checkpoints, profile and
epoch rows.
"""

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
"""The names that `atomic_file` writes under until the file is whole."""


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file that takes `path`'s place when the block ends; after an exception `path` stays as it
    was.

    The bytes go to a hidden neighbour first (a rename is atomic only within one file system), and both the
    file and the folder's entry are flushed to the disk. Missing parent folders are made, and their entries
    flushed too.
    """
    path = Path(path)
    _make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            _flush(file)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # the first error counts
            temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Replace the content of `path`; text is written as UTF-8 with its line ends as they are."""
    with atomic_file(path) as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)


def read_regular(path: str | Path) -> bytes:
    """Read a file. A folder, or a named pipe on which reading would wait for ever, raises OSError."""
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return path.read_bytes()


def remove_left_overs(folder: Path) -> None:
    """Remove what killed writes have left in the folder. To be called only while no one else writes there."""
    with suppress(OSError):  # they cost room, and nothing else
        for path in folder.glob(".*.tmp"):
            if TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)


def append_line(path: str | Path, line: str) -> None:
    """Add `line` and a line end in one write, on the disk when this returns.

    A crash can tear only the last line; a full disk leaves the file as it was.
    """
    path = Path(path)
    new = not path.exists()
    with open(path, "ab") as file:
        before = file.tell()
        try:
            file.write(f"{line}\n".encode())
            _flush(file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(file.fileno(), before)  # no half a line, to which the next would be added
            raise
    if new:
        _flush_folder(path.parent)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _flush_folder(folder.parent)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened, and its entries are written with the file
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
