"""Unstructured masks, which keep a model's pruned weights at zero."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from cuttlefish.errors import CuttlefishError


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of all Conv2d and Linear by dotted name, tied ones once, without biases and norms.

    Raises:
        CuttlefishError: A weight is computed from other tensors (weight norm), so zeros would not persist.
    """
    found: dict[str, nn.Parameter] = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if not isinstance(module.weight, nn.Parameter) or is_parametrized(module, "weight"):
            raise CuttlefishError(
                f"layer {name!r} cannot be pruned: its weight is computed from other tensors "
                "(a parametrization or weight norm)"
            )
        if not any(module.weight is weight for weight in found.values()):
            found[f"{name}.weight" if name else "weight"] = module.weight
    return found


class Masks(Mapping[str, Tensor]):
    """Parameter name → bool tensor of its shape, True where the entry is kept."""

    def __init__(self, masks: Mapping[str, Tensor]):
        self._masks = dict(masks)
        self._pairs: list[tuple[nn.Parameter, Tensor]] = []
        self._model: nn.Module | None = None

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Zero the pruned weights in place, cheaply enough for every step: one fused call, no host sync."""
        if model is not self._model:
            weights = {name: model.get_parameter(name) for name in self._masks}
            # With the weight's strides (channels_last): otherwise the fused call becomes one call per tensor.
            self._pairs = [
                (weight, torch.empty_like(weight).copy_(self._masks[name]))
                for name, weight in weights.items()
            ]
            self._model = model
        if self._pairs:
            weights, masks = (list(column) for column in zip(*self._pairs, strict=True))
            torch._foreach_mul_(weights, masks)

    @property
    def kept(self) -> int:
        return sum(int(mask.sum()) for mask in self._masks.values())

    @property
    def total(self) -> int:
        return sum(mask.numel() for mask in self._masks.values())

    @property
    def emptied(self) -> list[str]:
        """Return the names of layers that keep no weight."""
        return [name.removesuffix(".weight") for name, mask in self._masks.items() if not mask.any()]

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._masks)
