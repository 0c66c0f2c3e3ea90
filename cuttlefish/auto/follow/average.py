"""An exponential moving average of the weights follows the switch in the model's own basis.

Two truncated SVDs, of a weight and of its average, have unrelated bases, and the mean of their factors means
nothing. The average's factors are therefore turned by the rotation that brings them nearest to the model's
(orthogonal Procrustes), which leaves their product as it is.
"""

import torch
from torch import Tensor, nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.find import layer_of, low_rank_layers
from cuttlefish.lowrank.layers import LowRankLayer
from cuttlefish.lowrank.split import split_layer
from cuttlefish.lowrank.surgery import replace_module


def inner_model(average: nn.Module) -> nn.Module:
    """Return the averaged model itself: torch's AveragedModel and timm's ModelEma keep it as `module`."""
    inner = getattr(average, "module", average)
    return inner if isinstance(inner, nn.Module) else average


def check_average(model: nn.Module, average: nn.Module) -> None:
    """Raise CuttlefishError if this is no average of that model."""
    theirs = dict(inner_model(average).named_parameters())
    for name, parameter in model.named_parameters():
        if name not in theirs or theirs[name].shape != parameter.shape:
            raise CuttlefishError(
                f"the {type(average).__name__} is no average of this model: it has no {name} of shape "
                f"{tuple(parameter.shape)}"
            )


@torch.no_grad()
def split_average(model: nn.Module, average: nn.Module) -> None:
    """Factorize in the average, in place, each dense layer that is low-rank in the model.

    The product of its factors is the best approximation of the averaged weight at the layer's rank.
    """
    target = inner_model(average)
    for name, layer in low_rank_layers(model).items():
        if isinstance(target.get_submodule(name), LowRankLayer):
            continue
        options = {"extra_bn": layer.bn is not None, "first_bias": layer.first.bias is not None}
        new = split_layer(layer_of(target, name), layer.rank, scheme=layer.scheme, **options)
        _turn(new, layer)
        replace_module(target, name, new)


def _turn(layer: LowRankLayer, towards: LowRankLayer) -> None:
    """Rotate the basis between a layer's factors to be nearest to that of another layer."""
    U, Vt = (_exact(factor) for factor in layer.factors())
    U_model, Vt_model = (_exact(factor) for factor in towards.factors())
    left, _, right = torch.linalg.svd(U.T @ U_model + Vt @ Vt_model.T)
    rotation = left @ right
    second, first = layer.shaped(U @ rotation, rotation.T @ Vt)
    layer.second.weight.copy_(second)
    layer.first.weight.copy_(first)


def _exact(factor: Tensor) -> Tensor:
    return factor.detach().cpu().double()
