"""ResMLP of any size, registered with timm, whose own fix patch size, depth and width."""

from functools import partial
from typing import Any

from timm.models import register_model
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock


@register_model
def resmlp(pretrained: bool = False, **arguments: Any) -> MlpMixer:
    """Return a ResMLP (Touvron et al., 2021) by timm's arguments: patch_size, num_blocks, embed_dim, …"""
    if pretrained:
        raise ValueError("there are no weights of a ResMLP of any size")
    options = {"block_layer": partial(ResBlock, init_values=1e-4), "norm_layer": Affine, "mlp_ratio": 4}
    return MlpMixer(**options | {key: value for key, value in arguments.items() if value is not None})
