"""Find, download and verify data files, and compute the digest of data for the run key. Needs no torch."""

import hashlib
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from cuttlefish.config.schema import DataConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.registry import FileSet, data_set


def data_root(config: DataConfig) -> Path:
    """Return `data.root`, else environment variable CUTTLEFISH_DATA, else ./data."""
    named = config.root or os.environ.get("CUTTLEFISH_DATA") or "data"
    try:
        return Path(named).expanduser().absolute()
    except RuntimeError as error:
        raise CuttlefishError(
            f"the data root {named} ({_origin(config)}) is below the home of a user that this machine lacks"
        ) from error


def data_digest(config: DataConfig) -> str:
    """Return the SHA-256 (hex) of the data set's content, independent of the files' location.

    Raises:
        CuttlefishError: Files are missing or, with `data.verify`, differ from the published ones.
    """
    return data_set(config).digest(config)


def published_digest(config: DataConfig) -> str:
    """Return `data_digest`, without reading the files if they must be the published ones."""
    return data_set(config).published_digest(config)


def digest_of(content: Mapping[str, object]) -> str:
    """Return the SHA-256 (hex) of named values, ordered by name."""
    lines = "".join(f"{name} {content[name]}\n" for name in sorted(content))
    return hashlib.sha256(lines.encode()).hexdigest()


def data_there(config: DataConfig) -> bool:
    """Return whether the files of a run exist, without reading them; True for data without files."""
    return data_set(config).is_there(config)


def files_digest(config: DataConfig) -> str:
    """Return the digest of a data set's files: the published ones, unless `data.verify` is off."""
    folder = data_folder(config)
    return digest_of({name: _md5(folder / name) for name in data_set(config).files.md5})


def files_there(config: DataConfig, files: FileSet) -> bool:
    """Return whether the files exist or may be downloaded, without reading them."""
    return config.download or not _missing(data_root(config) / files.folder, files)


def data_folder(config: DataConfig) -> Path:
    """Return the folder of the data set's files, downloaded if missing, verified unless `data.verify` is off.

    Raises:
        CuttlefishError: A file is missing or differs from the published one, or must not be read unverified.
    """
    chosen = data_set(config)
    files, root = chosen.files, data_root(config)
    if files.pickled and not config.verify:
        raise CuttlefishError(
            f"data.verify=false is not possible for {chosen.title}: its files are pickles, which may run any "
            "code when they are read, so only those with the published checksums are"
        )
    folder = root / files.folder
    if config.download and _missing(folder, files):
        _download(chosen.title, files, root)
    if missing := _missing(folder, files):
        raise CuttlefishError(_missing_sentence(config, chosen.title, folder, missing))
    for name in files.md5 if config.verify else ():
        _check_file(folder / name, files)
    return folder


def _missing(folder: Path, files: FileSet) -> list[str]:
    try:
        return [name for name in files.md5 if not (folder / name).is_file()]
    except OSError as error:
        raise CuttlefishError(f"cannot look for data in {folder}: {error.strerror}") from error


def _download(title: str, files: FileSet, root: Path) -> None:
    try:
        files.download(root)
    except (OSError, RuntimeError) as error:
        raise CuttlefishError(
            f"Downloading {title} into {root} failed ({error}): try again with a network, "
            "or copy the files there and set data.download=false"
        ) from error


def _check_file(path: Path, files: FileSet) -> None:
    actual, published = _md5(path), files.md5[path.name]
    if actual != published:
        otherwise = "" if files.pickled else ", or set data.verify=false to use it as it is"
        raise CuttlefishError(
            f"{path} is damaged or not the original: its md5 is {actual}, the published one {published}; "
            f"delete it and get it again{otherwise}"
        )


def _missing_sentence(config: DataConfig, title: str, folder: Path, missing: list[str]) -> str:
    return (
        f"{title}'s {', '.join(missing)} not found: looked in {folder} (the root is {_origin(config)}); set "
        "data.download=true to fetch them, or set data.root or CUTTLEFISH_DATA to the folder that has them"
    )


def _origin(config: DataConfig) -> str:
    if config.root:
        return "data.root"
    return "CUTTLEFISH_DATA" if os.environ.get("CUTTLEFISH_DATA") else "the default, ./data"


def _md5(path: Path) -> str:
    try:
        state = path.stat()
        return _md5_of_state(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise CuttlefishError(f"cannot read the data file {path}: {error.strerror}") from error


@lru_cache(maxsize=64)
def _md5_of_state(path: Path, size: int, modified_ns: int) -> str:
    """Return the MD5, cached by path, size and time, so that a run hashes 180 MB only once."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
