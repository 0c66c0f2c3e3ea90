"""Atomic and durable file writes: a file is complete or absent, and on disk when the call returns.

Used for all files that must survive a killed run: record, checkpoints, profile and epoch rows.
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
"""Names of the temporary files of `atomic_file`."""


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file that replaces `path` at the end of the block; an exception leaves `path` unchanged.

    The bytes go to a hidden file in the same folder (rename is atomic only within one file system), and both
    the file and the folder's entry are flushed to disk. Missing parent folders are created and flushed too.
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
        with suppress(OSError):  # report the first error
            temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Replace the content of `path` atomically; text is written as UTF-8 with unchanged line ends."""
    with atomic_file(path) as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)


def read_regular(path: str | Path) -> bytes:
    """Read a regular file. Raises OSError for a folder or a named pipe, which could block forever."""
    _refuse_pipes(Path(path))
    return Path(path).read_bytes()


def remove_left_overs(folder: Path) -> None:
    """Remove temporary files of killed writes. Call it only while no other process writes to the folder."""
    with suppress(OSError):  # they only cost disk space
        for path in folder.glob(".*.tmp"):
            if TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)


def append_line(path: str | Path, line: str) -> None:
    """Append `line` and a line end in one write, flushed to disk.

    A crash can tear only the last line; a full disk leaves the file unchanged.
    """
    path = Path(path)
    _refuse_pipes(path)
    new = not path.exists()
    with open(path, "ab") as file:
        before = file.tell()
        try:
            file.write(f"{line}\n".encode())
            _flush(file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(file.fileno(), before)  # remove the partial line before the next append
            raise
    if new:
        _flush_folder(path.parent)


def _refuse_pipes(path: Path) -> None:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _flush_folder(folder.parent)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere folders cannot be opened, and entries are written with the file
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
