"""What torch refuses while a run is under way, told as what to change."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cuttlefish.config.schema import Config
from cuttlefish.errors import CuttlefishError


@contextmanager
def told_if_refused(config: Config) -> Iterator[None]:
    """Turns two refusals into a CuttlefishError that names what to change: no more memory (on a GPU or the host), and, in
    deterministic mode, an operation that has no deterministic form on this device."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        sentence = _sentence(error, config)
        if sentence is None:
            raise
        raise CuttlefishError(sentence) from error


def _sentence(error: MemoryError | RuntimeError, config: Config) -> str | None:
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return (
            f"out of memory ({text.split('. ')[0] or 'no more memory'}): lower recipe.batch_size={config.recipe.batch_size} (another result), or "
            f"keep it and choose trainer.precision=bf16, more trainer.devices than {config.trainer.devices}, or a smaller recipe.eval_batch_size; "
            "the last checkpoint is intact"
        )
    if "does not have a deterministic implementation" in text:
        return (
            f"trainer.deterministic=true, but {text.split()[0]} of this network has no deterministic form on this device: use trainer.device=cpu, "
            "another network or trainer.deterministic=false"
        )
    return None
