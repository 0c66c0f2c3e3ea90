"""Classifiers of timm and torchvision, imported only when needed."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import nn

from cuttlefish.config.schema import ModelConfig
from cuttlefish.errors import CuttlefishError

LOADS = {
    *("checkpoint", "checkpoint_path", "cache_dir", "weights", "weights_backbone"),
    *(
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "pretrained_filter_fn",
        "pretrained_model_args",
        "pretrained_backbone",
    ),
}
"""Arguments that load a file, which may be an unsafe pickle and is not part of the run key."""


def timm_names() -> list[str]:
    timm = _imported("timm")
    import_module("cuttlefish.models.resmlp")  # registers it
    return timm.list_models()


def torchvision_names() -> list[str]:
    models = _imported("torchvision").models
    return models.list_models(module=models)


def build_timm(config: ModelConfig, classes: int) -> nn.Module:
    create = _imported("timm").create_model
    weights = {"pretrained": config.pretrained}
    if config.revision is not None:
        weights["pretrained_cfg_overlay"] = {"hf_hub_id": f"{_repository_of(config)}@{config.revision}"}
    return _constructed(
        config, lambda: create(config.name, num_classes=classes, **weights, **config.arguments)
    )


def timm_repository(config: ModelConfig) -> str | None:
    """Return the hub's repository of a timm model's pretrained weights; None if they are elsewhere."""
    found = _imported("timm").models.get_pretrained_cfg(config.name)
    return None if found is None else found.hf_hub_id


def _repository_of(config: ModelConfig) -> str:
    repository = timm_repository(config)
    if repository is None:
        raise CuttlefishError(
            f"model.revision={config.revision} is of weights on the hub, where timm has none of {config.name}"
        )
    return repository


def build_torchvision(config: ModelConfig, classes: int) -> nn.Module:
    models = _imported("torchvision").models

    def construct() -> nn.Module:
        model = models.get_model(config.name, weights=None, num_classes=classes, **config.arguments)
        if config.pretrained:
            weights = models.get_model_weights(config.name).DEFAULT
            _load_matching(model, weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
        return model

    return _constructed(config, construct)


def _constructed(config: ModelConfig, construct: Callable[[], nn.Module]) -> nn.Module:
    if refused := sorted(LOADS & config.arguments.keys()):
        raise CuttlefishError(
            f"model.arguments.{refused[0]}: weights are not loaded by an argument of {config.source}'s "
            f"{config.name}; model.pretrained=true takes the library's own"
        )
    try:
        return construct()
    except Exception as error:  # a failing download's exception depends on the version
        reason = f"{type(error).__name__}: {str(error).strip()}".split("\n")[0]
        cause = (
            "its weights could not be fetched: try again with a network or set model.pretrained=false"
            if config.pretrained and not isinstance(error, TypeError)
            else f"check model.arguments={config.arguments}"
        )
        raise CuttlefishError(
            f"{config.source}'s {config.name} cannot be built ({reason}); {cause}"
        ) from error


def _load_matching(model: nn.Module, weights: dict[str, Any]) -> None:
    """Load all weights except the head's, whose shape depends on the number of classes."""
    own = model.state_dict()
    model.load_state_dict(
        {name: value for name, value in weights.items() if name in own and value.shape == own[name].shape},
        strict=False,
    )


def _imported(library: str) -> Any:
    try:
        import_module(f"{library}.models")
        return import_module(library)
    except ImportError as error:
        raise CuttlefishError(
            f"model.source={library} needs {library}, which cannot be imported ({error}): install it"
        ) from error
