"""Registry of the data sets in the modules of `cuttlefish.data.sets`. Needs no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import numpy as np

from cuttlefish.config.schema import DataConfig
from cuttlefish.config.suggest import choose_from
from cuttlefish.data import sets
from cuttlefish.errors import CuttlefishError

Arrays = tuple[np.ndarray, np.ndarray]
"""Images (N, H, W, C) uint8 and labels (N,) int64, in file order."""


@dataclass(frozen=True)
class FileSet:
    """The files of a data set.

    Attributes:
        folder: Their folder below the data root; "." is the root itself.
        md5: File name -> published checksum.
        download: Downloads them into the data root.
        pickled: Whether reading them can execute code, so that only the published files may be read.
    """

    folder: str
    md5: Mapping[str, str]
    download: Callable[[Path], None]
    pickled: bool = False


@dataclass(frozen=True)
class DataSet:
    """One kind of data.

    Attributes:
        title: Name for messages.
        classes: Returns the number of classes for a config.
        load: Returns images and labels of the split "train" or "test".
        files: Its files, whose checksums determine its digest.
        content: For a set without files, the named values that determine its images and digest.
        settings: Fields of `DataConfig` specific to this set.
    """

    title: str
    classes: Callable[[DataConfig], int]
    load: Callable[[DataConfig, str], Arrays]
    files: FileSet | None = None
    content: Callable[[DataConfig], Mapping[str, object]] | None = None
    settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.files is None) == (self.content is None):
            raise ValueError(
                f"{self.title} must have either files or content, which make its digest in the run key"
            )


def data_sets() -> dict[str, DataSet]:
    """Return all data sets by kind."""
    found: dict[str, DataSet] = {}
    for module in iter_modules(sets.__path__):
        of_module = import_module(f"{sets.__name__}.{module.name}").DATA_SETS
        if twice := found.keys() & of_module.keys():
            raise ValueError(f"{module.name} defines a second data set called {', '.join(sorted(twice))}")
        found |= of_module
    return found


def data_set(config: DataConfig) -> DataSet:
    """Return the data set of a config.

    Raises:
        CuttlefishError: The kind is unknown, or a setting does not apply to it.
    """
    table = data_sets()
    if config.kind not in table:
        raise CuttlefishError(f"there is no data.kind={config.kind}{choose_from(config.kind, table)}")
    for name in sorted({name for item in table.values() for name in item.settings}):
        if getattr(config, name) is not None and name not in table[config.kind].settings:
            takers = [f"data={kind}" for kind, item in table.items() if name in item.settings]
            raise CuttlefishError(
                f"data.{name} is a property of {config.kind}; only {' and '.join(takers)} can choose it"
            )
    return table[config.kind]


def check_name(config: DataConfig) -> None:
    """Raise CuttlefishError if a config gives its data set the name of another one."""
    if config.name in data_sets() and config.name != config.kind:
        raise CuttlefishError(
            f"data.name={config.name} is another data set than data.kind={config.kind}; "
            f"use data={config.kind}, or a name of its own"
        )
