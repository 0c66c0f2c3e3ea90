"""Registry of the kinds of data in the modules of `cuttlefish.tasks.sets`. Needs no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, ClassVar

from cuttlefish.config.schema import Config, DataConfig
from cuttlefish.config.suggest import choose_from, did_you_mean
from cuttlefish.config.validate import build_settings
from cuttlefish.errors import CuttlefishError
from cuttlefish.limits import Checked
from cuttlefish.tasks import sets

if TYPE_CHECKING:
    import torch

    from cuttlefish.tasks.base import Task

FOR_ALL = frozenset({"name", "kind", "root", "download", "verify", "evaluate_on", "settings"})
"""Fields of `DataConfig` that every kind of data has."""


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
class NoSettings(Checked):
    """The settings of data that has none of its own."""


class DataSet(ABC):
    """One kind of data (`data.kind`): its settings, its digest, and the task that is made of it.

    Attributes:
        title: Name for messages.
        files: Its published files, if it is made of such.
        takes: Further fields of `DataConfig` that apply to it.
        Settings: A dataclass of the keys of `data` that only it has. Its defaults must be neutral (None or
            as before), so that a new key changes no run key; the values of a kind are in its conf file.
    """

    title: str
    files: FileSet | None = None
    takes: frozenset[str] = frozenset()
    Settings: ClassVar[type[Checked]] = NoSettings

    @abstractmethod
    def digest(self, config: DataConfig) -> str:
        """Return a hash of the data's content, independent of the files' location.

        Raises:
            CuttlefishError: Data is missing or not as published.
        """

    def published_digest(self, config: DataConfig) -> str:
        """Return `digest`, without reading the files if they must be the published ones."""
        return self.digest(config)

    def is_there(self, config: DataConfig) -> bool:
        """Return whether the data can be used without a download that was not asked for; reads no content."""
        return True

    @abstractmethod
    def task(self, config: Config, device: torch.device, dtype: torch.dtype) -> Task:
        """Load the data and make the task, with inputs on the device and of the element type.

        Raises:
            CuttlefishError: The data is missing or invalid, or the settings do not fit it.
        """

    def settings(self, config: DataConfig) -> Any:
        """Return the typed `Settings` of a config. Raises CuttlefishError for unknown or invalid keys."""
        given = {key: value for key, value in config.settings.items() if value is not None}
        own = {field.name for field in fields(self.Settings)}
        if unknown := sorted(given.keys() - own):
            names = sorted(own | {field.name for field in fields(DataConfig)} - {"settings"})
            near = did_you_mean(unknown[0], names).replace("mean ", "mean data.")
            raise CuttlefishError(f"there is no key data.{unknown[0]} for {config.kind}{near}")
        return build_settings(self.Settings, given, "data")


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
    chosen, usual = table[config.kind], DataConfig()
    for field in fields(DataConfig):
        name = field.name
        if name not in FOR_ALL | chosen.takes and getattr(config, name) != getattr(usual, name):
            takers = [f"data={kind}" for kind, item in table.items() if name in item.takes]
            raise CuttlefishError(
                f"data.{name} does not apply to data={config.kind}: it is a setting of {', '.join(takers)}"
            )
    chosen.settings(config)
    return chosen


def check_name(config: DataConfig) -> None:
    """Raise CuttlefishError if a config gives its data set the name of another one."""
    if config.name in data_sets() and config.name != config.kind:
        raise CuttlefishError(
            f"data.name={config.name} is another data set than data.kind={config.kind}; "
            f"use data={config.kind}, or a name of its own"
        )
