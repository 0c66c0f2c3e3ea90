"""XNOR-Net (Rastegari et al., ECCV 2016), in the public CIFAR variant used by the Cuttlefish paper.

Every convolution but the first becomes BN → sign → convolution, with its own batch norm moved before it; all
of these but the last also have weights α·sign(W). Simulated in floating point, hence never faster than dense;
AdamW with a cosine, because the weights' gradients are scaled by up to thousands.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from baselines.conv_norms import convolutions
from baselines.xnor.binary import BinaryConv2d, centre_and_clamp
from baselines.xnor.settings import Settings
from cuttlefish.config.recipe import OptimizerConfig, RecipeConfig, ScheduleConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.count import count_parameters
from cuttlefish.lowrank.surgery import find_layers, replace_module
from cuttlefish.lowrank.trace import Batch
from cuttlefish.methods.base import Context, Method, Phase
from cuttlefish.methods.norms import after_norm
from cuttlefish.methods.schedule import build_schedule


def plan(model: nn.Module, example: Batch) -> dict[str, str | None]:
    """Return the convolutions to replace, all but the first, with the batch norm each moves along.

    Raises:
        CuttlefishError: One cannot be binarised: it is grouped or shared, or centring would empty it.
    """
    norms = dict(list(convolutions(model, example).items())[1:])
    if len(norms) < 2:
        raise CuttlefishError(
            "XNOR binarises the convolutions between the first and the last, and this model has none there"
        )
    refused = find_layers(model).refused
    for name in norms:
        if name in refused:
            raise CuttlefishError(f"XNOR cannot binarise layer {name!r}: {refused[name]}")
        if model.get_submodule(name).in_channels == 1:
            raise CuttlefishError(
                f"XNOR cannot binarise layer {name!r}: with one input channel, centring makes it zero"
            )
        if norms[name] is not None and after_norm(model.get_submodule(norms[name])) is None:
            kind = type(model.get_submodule(norms[name])).__name__
            raise CuttlefishError(
                f"XNOR cannot move batch norm {norms[name]!r} before its convolution: "
                f"it is a {kind} with behaviour of its own"
            )
    return norms


def insert_units(
    model: nn.Module, norms: Mapping[str, str | None], *, last: bool = False, act_scale: bool = False
) -> None:
    """Replace the planned convolutions by units, in place, and the norms after them by what is left.

    Draws no random numbers.

    Args:
        last: Binarise the last convolution's weight too.
    """
    final = list(norms)[-1]
    for name, norm in norms.items():
        conv = model.get_submodule(name)
        unit = BinaryConv2d(conv, binary=last or name != final, act_scale=act_scale)
        replace_module(model, name, unit.train(conv.training))
        if norm is not None:
            replace_module(model, norm, after_norm(model.get_submodule(norm)))


def binary_weights(model: nn.Module) -> list[nn.Parameter]:
    """Return the latent weights of the binarised convolutions."""
    return [
        module.conv.weight for module in model.modules() if isinstance(module, BinaryConv2d) and module.binary
    ]


class Xnor(Method):
    """Single-phase method with its own optimizer and schedule."""

    name = "xnor"
    no_fork = "changes the network before its first step"
    Settings = Settings
    norms: dict[str, str | None]
    latent: list[nn.Parameter]

    @classmethod
    def planned_epochs(cls, settings: Settings, recipe: RecipeConfig) -> int:
        return recipe.epochs + settings.extra_epoch

    def prepare(self, context: Context) -> None:
        inputs = context.example_batch().inputs
        self.norms = plan(context.model, inputs)

    def on_fit_start(self, context: Context) -> None:
        self._take_up(context.model)
        centre_and_clamp(self.latent)

    def phases(self, context: Context) -> Iterator[Phase]:
        epochs, lr = context.recipe.epochs, self.settings.learning_rate
        yield Phase(
            "train",
            range(self.planned_epochs(self.settings, context.recipe)),
            optimizer=OptimizerConfig("adamw", weight_decay=self.settings.weight_decay),
            schedule=build_schedule(ScheduleConfig("cosine", base_lr=lr, peak_lr=lr), epochs),
        )

    def on_step_end(self, model: nn.Module) -> None:
        # The original does it before each forward pass, evaluation included, with equal results.
        centre_and_clamp(self.latent)

    def on_fit_end(self, context: Context) -> dict[str, Any]:
        weights = sum(weight.numel() for weight in self.latent)
        return {"binary_layers": len(self.latent), "binary_weights": weights}

    def stored_bits(self, model: nn.Module) -> int:
        """Return 1 bit per binarised weight, 32 per filter's α and per other parameter."""
        binary = sum(weight.numel() for weight in binary_weights(model))
        filters = sum(weight.shape[0] for weight in binary_weights(model))
        return binary + 32 * (filters + count_parameters(model).total - binary)

    def state_dict(self) -> dict[str, Any]:
        return {"norms": self.norms, "switch_epoch": 0}

    def load_state_dict(self, context: Context, state: dict[str, Any]) -> None:
        self.norms = dict(state["norms"])
        self._take_up(context.model)

    def _take_up(self, model: nn.Module) -> None:
        insert_units(
            model, self.norms, last=self.settings.binarize_last_conv, act_scale=self.settings.act_scale
        )
        self.latent = binary_weights(model)
