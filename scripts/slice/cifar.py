"""Compress CIFAR-10's files: each batch's images as lossless WebP, with the rest of the pickle beside it.

The restored files equal the published ones byte for byte; their checksums are verified.
"""

import hashlib
import io
import lzma
import struct
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, SHEET = 32, 500
"""Image size in pixels; images stacked per sheet, which may have 16,383 rows."""
PIXELS = 3 * SIDE * SIDE


def pack_files(files: Sequence[Path], archive: Path) -> None:
    """Write the files into one archive."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for path in files:
            packed.writestr(path.name, squeeze(path.read_bytes()))


def unpack_files(archive: Path, folder: Path, md5: dict[str, str]) -> None:
    """Write an archive's files to `folder`. Raises ValueError if one differs from the published one."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            target = folder / Path(name).name
            if target.exists() and hashlib.md5(target.read_bytes()).hexdigest() == md5[name]:
                continue
            content = expand(packed.read(name))
            if hashlib.md5(content).hexdigest() != md5[name]:
                raise ValueError(f"{name} of {archive} is not the published file")
            target.write_bytes(content)


def squeeze(content: bytes) -> bytes:
    """Return the file with its longest block of images as WebP; any other file merely compressed."""
    start, count = _images(content)
    pixels = np.frombuffer(content, np.uint8, count * PIXELS, start).reshape(count, 3, SIDE, SIDE)
    rows = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)).reshape(count * SIDE, SIDE, 3)
    with ThreadPoolExecutor() as pool:
        sheets = list(
            pool.map(_webp, [rows[at : at + SHEET * SIDE] for at in range(0, len(rows), SHEET * SIDE)])
        )
    rest = lzma.compress(content[:start] + content[start + count * PIXELS :])
    sizes = [len(rest), *map(len, sheets)]
    head = struct.pack(f"<QII{len(sizes)}I", start, count, len(sizes), *sizes)
    return head + rest + b"".join(sheets)


def expand(squeezed: bytes) -> bytes:
    """Return the original input of `squeeze`."""
    start, count, number = struct.unpack_from("<QII", squeezed)
    sizes = struct.unpack_from(f"<{number}I", squeezed, 16)
    parts, at = [], 16 + 4 * number
    for size in sizes:
        parts.append(squeezed[at : at + size])
        at += size
    rest = lzma.decompress(parts[0])
    with ThreadPoolExecutor() as pool:
        sheets = list(pool.map(_pixels, parts[1:]))
    images = b""
    if count:
        rows = np.concatenate(sheets).reshape(count, SIDE, SIDE, 3)
        images = np.ascontiguousarray(rows.transpose(0, 3, 1, 2)).tobytes()
    return rest[:start] + images + rest[start:]


def _images(content: bytes) -> tuple[int, int]:
    """Return the offset of the pickled image bytes, and the number of images (10,000 in published batches).

    Pickle's protocol 2 writes such a long string as `T`, four bytes of length, then the string.
    """
    for count in (10_000, 1_000, 10):
        place = content.find(b"T" + struct.pack("<I", count * PIXELS))
        if place >= 0:
            return place + 5, count
    return 0, 0


def _pixels(webp: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(webp)).convert("RGB"))


def _webp(rows: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rows).save(buffer, "WEBP", lossless=True, quality=75, method=4, exact=True)
    return buffer.getvalue()
