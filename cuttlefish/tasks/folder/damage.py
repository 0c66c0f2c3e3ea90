"""Whether an image file is damaged: a look at its ends, and where that leaves doubt, decoding it."""

from cuttlefish.errors import CuttlefishError

JPEG, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
PNG, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
TAIL = 32
"""Bytes before the end of a file among which an end marker must be: some files are padded."""


def damaged(path: str) -> bool:
    """Return whether an image is not whole. Damage within a file that ends well is found in training."""
    try:
        with open(path, "rb") as file:
            head = file.read(8)
            file.seek(-min(TAIL, file.seek(0, 2)), 2)
            tail = file.read()
    except OSError:
        return True
    if head.startswith(JPEG) and JPEG_END in tail or head == PNG and PNG_END in tail:
        return False
    return not _decodes(path)


def _decodes(path: str) -> bool:
    from cuttlefish.tasks.folder.images import decoded  # imports torch

    try:
        decoded(path)
    except CuttlefishError:
        return False
    return True
