"""The knobs of XNOR-Net."""

from dataclasses import dataclass
from typing import Annotated

from cuttlefish.config.recipe import LearningRate
from cuttlefish.limits import Checked, Within


@dataclass(frozen=True)
class Settings(Checked):
    """binarize_last_conv: the original keeps the last convolution's weights at full precision (its indexing
    was made for networks that end in a convolution). act_scale: the paper's K beside α, which the original
    computes and discards. learning_rate, weight_decay: of AdamW, with a cosine to 0. decay_all: decay on
    norms and biases too. extra_epoch: one more at learning rate 0, as in the original."""

    binarize_last_conv: bool = False
    act_scale: bool = False
    learning_rate: LearningRate = 1e-3
    weight_decay: Annotated[float, Within(0, 1000)] = 1e-4
    decay_all: bool = False
    extra_epoch: bool = False
