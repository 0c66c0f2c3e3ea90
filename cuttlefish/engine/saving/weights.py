"""A finished run's weights as safetensors, which need no unpickling and are readable by other tools.

The network's tensors keep their names. The method's state (ranks, masks, a ticket), needed to rebuild the
architecture, is in the file's metadata, its tensors under `method:<number>`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.record.atomic import write_atomic
from cuttlefish.record.folder import WEIGHTS

METADATA = "cuttlefish"
KINDS = {"list": list, "tuple": tuple, "set": set}


@dataclass(frozen=True)
class Weights:
    """The key of the run that trained the weights, the model's state dict and the method's state."""

    run_key: str
    model: dict[str, Tensor]
    method: dict[str, Any]


def save_weights(folder: Path, run_key: str, model: nn.Module, method_state: Mapping[str, Any]) -> Path:
    """Write `model.safetensors` atomically.

    Raises:
        OSError: The file cannot be written.
        ImportError: safetensors is not installed.
    """
    from safetensors.torch import save  # optional: training needs torch only

    tensors = {name: _own(tensor) for name, tensor in model.state_dict().items()}
    state = _pack(method_state, tensors)
    # A single entry: safetensors writes several in no fixed order, but equal runs must give equal bytes.
    content = save(tensors, metadata={METADATA: json.dumps({"run_key": run_key, "method": state})})
    write_atomic(folder / WEIGHTS, content)
    return folder / WEIGHTS


def load_weights(folder: Path) -> Weights:
    """Read weights. Raises CuttlefishError for a file that is missing, damaged or not from `save_weights`."""
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no regular file")
        with safe_open(path, "pt") as file:
            metadata = _metadata(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        method = _unpack(metadata["method"], tensors)
        return Weights(
            metadata["run_key"],
            {name: value for name, value in tensors.items() if not name.startswith("method:")},
            method,
        )
    except FileNotFoundError:
        raise CuttlefishError(f"there are no weights at {path}; a run writes them when it finishes") from None
    except (
        SafetensorError,
        OSError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        raise CuttlefishError(
            f"{path} is damaged or not this suite's: {type(error).__name__}: {error}"
        ) from error


def _metadata(written: Mapping[str, str]) -> dict[str, Any]:
    if METADATA in written:
        return json.loads(written[METADATA])
    return {"run_key": written["run_key"], "method": json.loads(written["method"])}  # of earlier versions


def _own(tensor: Tensor) -> Tensor:
    """Copy to contiguous memory: safetensors accepts neither shared nor channels-last tensors."""
    return tensor.detach().cpu().contiguous().clone()


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the value in JSON's types; add its tensors to `tensors`.

    Mappings are stored as lists of pairs, so that their keys keep their type.
    """
    if isinstance(value, Tensor):
        name = f"method:{len(tensors)}"
        tensors[name] = _own(value)
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[_pack(key, tensors), _pack(item, tensors)] for key, item in value.items()]}
    for name, kind in KINDS.items():
        if isinstance(value, kind):
            items = sorted(value, key=repr) if kind is set else value  # a set has no defined order
            return {name: [_pack(item, tensors) for item in items]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a method's state holds tensors and plain containers only, not {type(value).__name__}")


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {_unpack(key, tensors): _unpack(item, tensors) for key, item in content}
    return KINDS[kind](_unpack(item, tensors) for item in content)
