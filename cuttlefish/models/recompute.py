"""Activation checkpointing by the libraries' own switches."""

from collections.abc import Callable

from torch import nn

from cuttlefish.errors import CuttlefishError


def recompute_activations(model: nn.Module, name: str) -> None:
    """Let the model recompute its blocks' activations in the backward pass instead of keeping them.

    Raises:
        CuttlefishError: The model cannot.
    """
    for module in model.modules():  # a model of transformers lies in a wrapper that returns its logits
        for switch in ("set_grad_checkpointing", "gradient_checkpointing_enable"):
            turn_on = getattr(module, switch, None)
            if turn_on is not None:
                return _turn_on(turn_on, name)
    raise CuttlefishError(
        f"trainer.recompute=true: {name} has no activation checkpointing; models of timm and "
        "transformers have it"
    )


def _turn_on(turn_on: Callable[[], None], name: str) -> None:
    try:
        turn_on()
    except (AssertionError, ValueError, NotImplementedError) as error:
        raise CuttlefishError(f"trainer.recompute=true: {name} has no activation checkpointing") from error
