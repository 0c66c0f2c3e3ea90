"""Batch-norm statistics, measured anew after the layers before them have changed."""

from collections.abc import Iterable, Mapping
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.trace import NORMS, Batch, Forward, call_model, evaluating


@torch.no_grad()
def recalibrate(
    model: nn.Module, loader: Iterable[Any], batches: int = 32, forward: Forward = call_model
) -> int:
    """Replace the running statistics of every batch norm by the mean over some batches, in place.

    Args:
        model: Runs in eval mode but for its batch norms; modes are as before afterwards.
        loader: Yields what `forward` takes beside the model. Tensors are brought to the model's device.
        batches: How many are taken at most.
        forward: How to call the model on a batch.

    Returns:
        How many batches were seen; 0 for a model without batch norms.

    Raises:
        CuttlefishError: The loader is empty. The statistics are as before then.
    """
    norms = [module for module in model.modules() if isinstance(module, NORMS) and module.track_running_stats]
    if not norms:
        return 0
    device = next(model.parameters()).device
    rest = islice(loader, max(batches, 0))
    first = list(islice(rest, 1))
    if not first:
        raise CuttlefishError("recalibrate got no batch: the loader is empty, or batches is below 1.")
    momenta, seen = [norm.momentum for norm in norms], 0
    with evaluating(model):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        try:
            for batch in chain(first, rest):
                forward(model, tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, batch))
                seen += 1
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    return seen


def inputs_like(form: type | frozenset[str], batch: Any) -> Batch:
    """Return the inputs in what a loader yields: (inputs, labels) or a mapping with further keys.

    Args:
        form: The type of the batch that the model was traced with, or its keys if it was a mapping.
        batch: What the loader yields.
    """
    if isinstance(form, frozenset) and isinstance(batch, Mapping):
        return {key: value for key, value in batch.items() if key in form}
    if isinstance(form, type) and issubclass(form, Tensor) and isinstance(batch, tuple | list):
        return batch[0]
    return batch
