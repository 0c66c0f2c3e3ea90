"""Where the data is, whether it is what was published, and a digest of it for the run key. Does not import torch."""

import hashlib
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from cuttlefish.config.schema import DataConfig
from cuttlefish.data.published import FILE_SETS, FileSet
from cuttlefish.errors import CuttlefishError


def data_root(config: DataConfig) -> Path:
    """`data.root`, else the environment's CUTTLEFISH_DATA, else ./data."""
    return Path(config.root or os.environ.get("CUTTLEFISH_DATA") or "data").expanduser().absolute()


def cache_folder() -> Path:
    """Where packed data is unpacked to: the environment's CUTTLEFISH_CACHE, else ~/.cache/cuttlefish."""
    return Path(os.environ.get("CUTTLEFISH_CACHE") or "~/.cache/cuttlefish").expanduser().absolute()


def data_digest(config: DataConfig) -> str:
    """SHA-256 (hex) of the data set's content: the same wherever its files lie, packed or not.

    Raises CuttlefishError if files are missing or, with `data.verify`, not the published ones.
    """
    if config.kind in FILE_SETS:
        return digest_of({name: _md5(path) for name, path in data_files(config).items()})
    if config.kind == "digits":
        from cuttlefish.data.digits import content
    else:
        from cuttlefish.data.synthetic import content
    return digest_of(content(config))


def digest_of(content: Mapping[str, object]) -> str:
    """SHA-256 (hex) of named values, in the order of their names."""
    lines = "".join(f"{name} {content[name]}\n" for name in sorted(content))
    return hashlib.sha256(lines.encode()).hexdigest()


def data_files(config: DataConfig) -> dict[str, Path]:
    """The data set's files by name: found (or unpacked, or downloaded), and verified unless `data.verify` is off."""
    file_set = FILE_SETS[config.kind]
    folder = _locate(config, file_set)
    files = {name: folder / name for name in file_set.md5}
    if config.verify:
        for name, path in files.items():
            check_file(path, file_set.md5[name])
    return files


def check_file(path: Path, published: str) -> None:
    actual = _md5(path)
    if actual != published:
        raise CuttlefishError(
            f"{path} is damaged or not the original: its md5 is {actual}, the published one {published}; "
            "delete it and get it again, or set data.verify=false to use it as it is"
        )


def missing_files(folder: Path, file_set: FileSet) -> list[str]:
    return [name for name in file_set.md5 if not (folder / name).is_file()]


def data_there(config: DataConfig) -> bool:
    """Whether a run would find its files, without reading any. Generated and embedded data always is."""
    if config.kind not in FILE_SETS or config.download:
        return True
    root, file_set = data_root(config), FILE_SETS[config.kind]
    return not missing_files(root / file_set.folder, file_set) or bool(
        file_set.packed and (root / file_set.packed).is_dir()
    )


def _locate(config: DataConfig, file_set: FileSet) -> Path:
    """The folder that holds every file: below the root, else the cache (unpacked on first use), else downloaded."""
    root = data_root(config)
    folder = root / file_set.folder
    if not missing_files(folder, file_set):
        return folder
    if file_set.packed and (root / file_set.packed).is_dir():
        from cuttlefish.data.packed import unpack

        return unpack(file_set, root / file_set.packed, cache_folder())
    if config.download:
        from cuttlefish.data.download import download

        download(config.kind, root)
    if missing := missing_files(folder, file_set):
        raise CuttlefishError(_missing_sentence(config, file_set, missing))
    return folder


def _missing_sentence(config: DataConfig, file_set: FileSet, missing: list[str]) -> str:
    root = data_root(config)
    origin = (
        "data.root"
        if config.root
        else "CUTTLEFISH_DATA"
        if os.environ.get("CUTTLEFISH_DATA")
        else "the default, ./data"
    )
    packed = f" and for {root / file_set.packed}" if file_set.packed else ""
    unpack = ", unpack a packed copy with `python -m scripts.data unpack SRC DEST`" if file_set.packed else ""
    return (
        f"{file_set.title}'s {', '.join(missing)} not found: looked in {root / file_set.folder}{packed} (the root is {origin}); "
        f"set data.download=true to fetch them{unpack}, or set data.root or CUTTLEFISH_DATA to the folder that has them"
    )


def _md5(path: Path) -> str:
    state = path.stat()
    return _md5_of_state(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _md5_of_state(path: Path, size: int, modified_ns: int) -> str:
    """Cached by size and time too: a run asks for the digest, then loads, and 180 MB need not be hashed twice."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
