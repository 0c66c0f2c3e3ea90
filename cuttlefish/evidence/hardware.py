"""What a device's name tells."""

import re

from cuttlefish.display.format import counted


def is_cpu(device: str) -> bool:
    """Records name a CPU with the number of cores computed on, a GPU without."""
    return re.search(r", \d+ cores?$", device) is not None


def threads_words(threads: int | None) -> list[str]:
    return [counted(threads, "thread")] if threads else []
