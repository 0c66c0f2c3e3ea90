"""Out of memory, told as what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cuttlefish.config import Config
from cuttlefish.errors import CuttlefishError


@contextmanager
def told_if_full(config: Config) -> Iterator[None]:
    """Turns running out of memory, on a GPU or the host, into a CuttlefishError that names what to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        asked = " ".join(str(error).split(". ")[0].split()) or "no more memory"
        raise CuttlefishError(
            f"out of memory ({asked}): lower recipe.batch_size={config.recipe.batch_size} (another result), or keep it and choose "
            f"trainer.precision=bf16, more trainer.devices than {config.trainer.devices}, or a smaller recipe.eval_batch_size; "
            "the last checkpoint is intact"
        ) from error
