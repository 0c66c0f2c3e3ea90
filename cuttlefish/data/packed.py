"""The packed form of CIFAR: lossless image strips in zips, from which the original files are rebuilt byte for byte.

Original file F is the concatenation of the members, in name order, of F.0.zip, F.1.zip, … : a `.bin` member as it is,
a `.webp` member as 32-pixel-wide images, one below the other, written channel first.
"""

import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from zipfile import BadZipFile, ZipFile, ZipInfo

import numpy as np

from cuttlefish.data.published import FileSet
from cuttlefish.errors import CuttlefishError
from cuttlefish.record.atomic import write_atomic

SIDE = 32
MEMBER = re.compile(r"\d_head\.bin|strip_\d{3}\.webp|tail\.bin")
MEMBER_LIMIT = 64 << 20
"""Bytes. The largest real member is below 2 MB; a zip that claims more is not one of ours."""


def unpack(file_set: FileSet, packed: Path, destination: Path) -> Path:
    """Rebuild `file_set` from the folder `packed` below `destination`; returns the folder of the rebuilt files.

    Files that are already there stay. Each file appears whole and verified or not at all, so processes may race.
    Members are read, never extracted: nothing in a zip can choose where something is written.
    """
    folder = destination / file_set.folder
    for name, published in file_set.md5.items():
        if not (folder / name).is_file():
            _write(folder / name, _rebuild_verified(packed, name, published))
    return folder


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomic(path, content)
    except OSError as error:
        raise CuttlefishError(
            f"Cannot write the unpacked {path} ({error.strerror or error}): choose a writable folder with 200 MB free "
            "(CUTTLEFISH_CACHE for what is unpacked on first use)"
        ) from error


def _rebuild_verified(packed: Path, name: str, published: str) -> bytes:
    try:
        content = b"".join(_parts(packed, name))
    except (BadZipFile, OSError, EOFError, ValueError, RuntimeError, NotImplementedError) as error:
        raise CuttlefishError(
            f"The packed copy of {name} in {packed} cannot be read ({error}): get it again"
        ) from error
    actual = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if actual != published:
        raise CuttlefishError(
            f"The packed copy of {name} in {packed} is damaged: it unpacks to md5 {actual}, the published one is {published}; get it again"
        )
    return content


def _parts(packed: Path, name: str) -> Iterator[bytes]:
    archives = sorted(packed.glob(f"{name}.[0-9].zip"))
    if not archives:
        raise FileNotFoundError(f"there is no {name}.0.zip")
    for archive in archives:
        with ZipFile(archive) as opened:
            for member in sorted(opened.infolist(), key=lambda member: member.filename):
                yield _part(opened, member)


def _part(archive: ZipFile, member: ZipInfo) -> bytes:
    if not MEMBER.fullmatch(member.filename) or member.file_size > MEMBER_LIMIT:
        raise ValueError(f"unexpected member {member.filename!r} of {member.file_size} bytes")
    content = archive.read(member)
    return _channel_first(content) if member.filename.endswith(".webp") else content


def _channel_first(strip: bytes) -> bytes:
    try:
        from PIL import Image
    except ImportError as error:
        raise CuttlefishError(
            "unpacking images needs Pillow, which is not installed here: install it, or bring the files that "
            "`python -m scripts.data unpack` writes on a machine with it"
        ) from error
    with Image.open(io.BytesIO(strip), formats=["WEBP"]) as image:
        pixels = np.asarray(image.convert("RGB"))
    return pixels.reshape(-1, SIDE, SIDE, 3).transpose(0, 3, 1, 2).tobytes()
