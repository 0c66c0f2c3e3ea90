"""Data sets of the Hugging Face hub, read by `datasets`."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

from cuttlefish.errors import CuttlefishError


def datasets_library(what: str, instead: str) -> ModuleType:
    """Import `datasets`. Raises CuttlefishError that says what needs it and what would do without it."""
    try:
        import datasets
    except ImportError as error:
        raise CuttlefishError(
            f"{what} by datasets, which is not installed: pip install -e '.[hub]', or {instead}"
        ) from error
    return datasets


def hub_commit(repository: str, rows: Any) -> dict[str, str]:
    """Return the repository and the commit at which a `datasets.Dataset` of the hub was read, where known.

    It is the name of the folder in which `datasets` keeps the prepared rows.
    """
    for file in getattr(rows, "cache_files", ()):
        folder = Path(file["filename"]).parent.name
        if re.fullmatch("[0-9a-f]{40}", folder):
            return {repository: folder}
    return {}
