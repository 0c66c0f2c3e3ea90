"""Build a network from a model's config, and check that it accepts the data's images or sentences."""

import torch
from torch import Tensor, nn

from cuttlefish.config.library_names import unknown_name
from cuttlefish.config.schema import ModelConfig
from cuttlefish.config.suggest import choose_from
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.layout import keep_plain
from cuttlefish.models.libraries import build_timm, build_torchvision, timm_names, torchvision_names
from cuttlefish.models.resnet_cifar import ResNet
from cuttlefish.models.vgg_cifar import Vgg19

SUITE = {"resnet18": ResNet, "vgg19": Vgg19}


def build_model(config: ModelConfig, classes: int, input_shape: tuple[int, int, int] | None) -> nn.Module:
    """Return a network on the CPU that maps inputs to (B, classes) logits.

    Args:
        config: The model's config.
        classes: Number of logits.
        input_shape: (C, H, W) of float32 images; None for text, by `input_ids` and `attention_mask`.

    Raises:
        CuttlefishError: The name is unknown, a setting inapplicable, the weights are not to be had, or the
            network does not accept such inputs.
    """
    config.check("model")
    _check_kind(config, input_shape)
    if config.source == "transformers":
        return _text_model(config, classes)
    _check_name(config)
    if config.source == "suite":
        settings = {} if config.width is None else {"width": config.width}
        model = SUITE[config.name](classes, input_shape[0], **settings)
    elif config.source == "timm":
        model = build_timm(config, classes)
    else:
        model = build_torchvision(config, classes)
    _check_images(model, config, classes, input_shape)
    return keep_plain(model)


def _check_kind(config: ModelConfig, input_shape: tuple[int, int, int] | None) -> None:
    if config.source == "transformers" and input_shape is not None:
        shape = "x".join(map(str, input_shape))
        raise CuttlefishError(
            f"{config.name} reads text and the data set has images of {shape}: choose data=glue/mrpc or "
            "another data set of sentences, or a network for images"
        )
    if config.source != "transformers" and input_shape is None:
        raise CuttlefishError(
            f"{config.name} takes images and the data set has sentences: choose model=minilm or another text "
            "model, or a data set of images"
        )


def _text_model(config: ModelConfig, classes: int) -> nn.Module:
    from cuttlefish.models.encoders import build_transformers

    model = build_transformers(config, classes).eval()
    with torch.no_grad():
        logits = model(torch.ones(1, 2, dtype=torch.int64))
    if logits.shape != (1, classes):
        raise CuttlefishError(f"{_label(config)} is no classifier of sentences")
    return model.train()


def _check_name(config: ModelConfig) -> None:
    if config.source == "suite":
        if config.name not in SUITE:
            raise CuttlefishError(
                f"model.name={config.name} is not a model of the suite{choose_from(config.name, SUITE)}"
            )
        return
    names = timm_names() if config.source == "timm" else torchvision_names()
    if config.name.partition(".")[0] not in names:
        raise unknown_name(config, names)


def _check_images(
    model: nn.Module, config: ModelConfig, classes: int, input_shape: tuple[int, int, int]
) -> None:
    """Pass one black image through the model in eval mode, which does not change it."""
    shape = "x".join(map(str, input_shape))
    model.eval()
    try:
        with torch.no_grad():
            logits = model(torch.zeros(1, *input_shape))
    except (RuntimeError, AssertionError, ValueError, IndexError, TypeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise CuttlefishError(
            f"{_label(config)} does not accept images of {shape} ({reason}): take another model or data set, "
            "or set its image size in model.arguments"
        ) from error
    finally:
        model.train()
    if not isinstance(logits, Tensor) or logits.shape != (1, classes):
        raise CuttlefishError(
            f"{_label(config)} is not a classifier: for an image of {shape} it should return {classes} logits"
        )


def _label(config: ModelConfig) -> str:
    return f"{'the suite' if config.source == 'suite' else config.source}'s {config.name}"
