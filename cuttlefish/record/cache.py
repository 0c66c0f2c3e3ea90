"""The folder of what can be made again: compositions and tokens."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the environment's CUTTLEFISH_CACHE, else ~/.cache/cuttlefish."""
    return Path(os.environ.get("CUTTLEFISH_CACHE") or "~/.cache/cuttlefish").expanduser().absolute()
