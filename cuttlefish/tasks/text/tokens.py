"""Sentences as token numbers: encoded once, then read from a cache on disk by content."""

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cuttlefish.record.atomic import atomic_file
from cuttlefish.record.cache import cache_folder

VERSION = 1
"""Raise it when a change alters the arrays, so that no older cache is read."""

AT_ONCE = 20_000
"""Sentences encoded at once: the tokenizer's own form of one takes kilobytes."""


@dataclass(frozen=True)
class Encoded:
    """The tokens of N sentences or pairs, one after the other, without padding.

    Attributes:
        ids: (T,) int32, the token numbers, special tokens included.
        types: (T,) uint8, 1 for the second sentence of a pair.
        starts: (N + 1,) int64; sentence i has the tokens from starts[i] up to starts[i + 1].
    """

    ids: np.ndarray
    types: np.ndarray
    starts: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)


def encode(
    tokenizer: Any, digest: str, sentences: Sequence[list[str]], max_length: int, cache: Path | None = None
) -> Encoded:
    """Return the tokens of sentences or pairs, cut to `max_length` from the longer one's end.

    Args:
        tokenizer: A `tokenizers.Tokenizer`; it is not changed.
        digest: Hash of the tokenizer's content.
        cache: The cache's folder, by default CUTTLEFISH_CACHE, else ~/.cache/cuttlefish. A file that is
            missing, damaged or cannot be written only costs the time of encoding.
    """
    file = (cache or cache_folder()) / "tokens" / f"{_key(sentences, digest, max_length)}.npz"
    found = _read(file, len(sentences[0]))
    if found is None:
        found = tokenise(tokenizer, sentences, max_length)
        _write(file, found)
    return found


def tokenise(tokenizer: Any, sentences: Sequence[list[str]], max_length: int) -> Encoded:
    """Encode without the cache, by all cores."""
    own = type(tokenizer).from_str(tokenizer.to_str())
    own.no_padding()
    own.enable_truncation(max_length)
    inputs = list(zip(*sentences, strict=True)) if len(sentences) == 2 else sentences[0]
    lengths, ids, types = [], [], []
    for first in range(0, len(inputs), AT_ONCE):
        encodings = own.encode_batch_fast(inputs[first : first + AT_ONCE])
        lengths += [len(one) for one in encodings]
        ids.append(np.concatenate([np.array(one.ids, np.int32) for one in encodings]))
        types.append(np.concatenate([np.array(one.type_ids, np.uint8) for one in encodings]))
    return Encoded(np.concatenate(ids), np.concatenate(types), np.concatenate([[0], np.cumsum(lengths)]))


def _key(sentences: Sequence[list[str]], digest: str, max_length: int) -> str:
    content = hashlib.sha256(f"{VERSION} {digest} {max_length} {len(sentences)}".encode())
    for column in sentences:
        # Lengths before the text keep "ab", "c" apart from "a", "bc".
        content.update(f"{[len(text) for text in column]}".encode())
        content.update("".join(column).encode("utf-8", "surrogatepass"))
    return content.hexdigest()


def _read(file: Path, count: int) -> Encoded | None:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = Encoded(arrays["ids"], arrays["types"], arrays["starts"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    whole = len(found.starts) == count + 1 and found.starts[-1] == len(found.ids) == len(found.types)
    return found if whole else None


def _write(file: Path, encoded: Encoded) -> None:
    try:
        with atomic_file(file) as target:
            np.savez(target, ids=encoded.ids, types=encoded.types, starts=encoded.starts)
    except OSError:
        pass  # a read-only or full home must not prevent training
