"""Low-rank models as single safetensors files, whose metadata hold the plan."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

from cuttlefish.compression.plan import apply, plan
from cuttlefish.errors import CuttlefishError

KEY = "cuttlefish_plan"


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write weights, buffers and plan to one safetensors file, whole or not at all (needs safetensors).

    Args:
        model: Low-rank or not. Tied weights are written once.
        path: The file, usually *.safetensors.

    Raises:
        CuttlefishError: The file cannot be written.
    """
    save_model = _safetensors().save_model
    from safetensors import SafetensorError

    part = Path(path).with_name(f"{Path(path).name}.part")
    try:
        save_model(model, str(part), metadata={KEY: json.dumps(plan(model))})
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise CuttlefishError(f"cannot write {os.fspath(path)!r}: {error}") from error


def load(model_fn: Callable[[], nn.Module], path: str | os.PathLike[str]) -> nn.Module:
    """Return the model of a file: `model_fn`'s full-rank one with the file's low-rank layers and weights.

    Args:
        model_fn: Builds the full-rank model that was saved; its weights do not matter.
        path: A file of `save`.

    Raises:
        CuttlefishError: The file is missing, is none of `save`, or does not fit the model.
    """
    tools = _safetensors()
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise CuttlefishError(f"there is no file {os.fspath(path)!r} to load a model from")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise CuttlefishError(f"{os.fspath(path)!r} is no safetensors file: {error}") from error
    if KEY not in metadata:
        raise CuttlefishError(f"{os.fspath(path)!r} holds no plan: it was not written by cuttlefish.save")
    try:
        found = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        raise CuttlefishError(f"{os.fspath(path)!r} holds a damaged plan: {error}") from error
    model = apply(model_fn(), found, initialise=False)
    try:
        tools.load_model(model, path)
    except RuntimeError as error:
        raise CuttlefishError(f"the weights in {os.fspath(path)!r} do not fit the model: {error}") from error
    return model


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise CuttlefishError("saving and loading need safetensors: pip install safetensors") from error
    return safetensors.torch
