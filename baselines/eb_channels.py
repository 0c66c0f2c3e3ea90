"""Find the batch-norm channels that a model can lose without other changes, by tracing one forward pass.

A chain is conv → BN → (only maps with f(0) = 0, pools, reshapes) → one or more convs or linear layers, and
nothing else reads its intermediate values. Masking one of its channels (γ = β = 0) then equals removing it
from the conv's rows, the BN's vectors and the readers' columns. A residual sum reads its summands, so only
the BNs inside a block qualify.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cuttlefish.lowrank.find import find_layers
from cuttlefish.lowrank.trace import evaluating

ZERO_TO_ZERO = {
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "silu", "gelu", "hardswish", "mish", "tanh", "elu",
    "elu_", "selu", "celu", "softsign", "dropout", "dropout2d", "clone", "contiguous",
}  # fmt: skip
POOLS = {"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"}
RESHAPES = {"flatten", "view", "reshape", "squeeze"}
QUESTIONS = {"dim", "size", "__get__", "is_floating_point", "is_contiguous", "numel"}
"""Calls that query a tensor's shape or type but not its values."""


@dataclass(frozen=True)
class Chain:
    """A conv, its BN and the layers that read it, by dotted names.

    Attributes:
        spans: Columns that each reader has per channel (1 for a conv).
    """

    conv: str
    norm: str
    readers: tuple[str, ...]
    spans: tuple[int, ...]
    channels: int


@dataclass
class _Call:
    function: str
    inputs: list[int]
    """A recorded call, with the numbers of the values it read."""
    outputs: list[int]
    parameters: list[int]
    given: list[Tensor]
    found: list[Tensor]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


class _Watch(TorchFunctionMode):
    """Records every call on tensors. Each value has a number; an in-place call creates a new one."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.parameters = {id(parameter) for parameter in model.parameters()}
        self.calls: list[_Call] = []
        self.numbers: dict[int, int] = {}
        self.values = 0
        self._alive: list[Any] = []  # keeps ids unique

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = list(_tensors([args, kwargs]))
        inputs = [self.number(tensor) for tensor in given if id(tensor) not in self.parameters]
        parameters = [id(tensor) for tensor in given if id(tensor) in self.parameters]
        result = function(*args, **kwargs)
        found = list(_tensors(result))
        outputs = [self.number(tensor, anew=True) for tensor in found]
        self._alive += [given, found]
        given = [tensor for tensor in given if id(tensor) not in self.parameters]
        self.calls.append(
            _Call(getattr(function, "__name__", "?"), inputs, outputs, parameters, given, found, args, kwargs)
        )
        return result

    def number(self, tensor: Tensor, anew: bool = False) -> int:
        if anew or id(tensor) not in self.numbers:
            self.numbers[id(tensor)] = self.values
            self.values += 1
            self._alive.append(tensor)
        return self.numbers[id(tensor)]


def find_chains(model: nn.Module, example: Tensor) -> list[Chain]:
    """Return the chains in execution order. Runs the model once, in eval mode, on two samples."""
    watch = _Watch(model)
    with torch.no_grad(), evaluating(model), watch:
        result = model(example[:2])
    returned = {watch.number(tensor) for tensor in _tensors(result)}
    return list(_Finder(model, watch.calls, returned).chains())


class _Finder:
    def __init__(self, model: nn.Module, calls: list[_Call], returned: set[int]):
        self.calls, self.returned = calls, returned
        self.layers = find_layers(model).layers
        self.modules = {
            name: module for name, module in model.named_modules() if name in self.layers or _is_norm(module)
        }
        self.owners = {id(module.weight): name for name, module in self.modules.items()}
        used = [parameter for call in calls for parameter in set(call.parameters)]
        self.once = {name for parameter, name in self.owners.items() if used.count(parameter) == 1}
        self.readers: dict[int, list[_Call]] = {}
        for call in calls:
            for number in set(call.inputs):
                if call.function not in QUESTIONS or call.found:
                    self.readers.setdefault(number, []).append(call)

    def chains(self) -> Iterator[Chain]:
        for conv in self.calls:
            made = self._layer(conv, nn.Conv2d)
            norms = self.readers.get(conv.outputs[0], []) if made else []
            if len(norms) != 1 or conv.outputs[0] in self.returned:
                continue
            norm = self._layer(norms[0], nn.BatchNorm2d)
            if norm and norms[0].inputs[0] == conv.outputs[0]:
                channels = self.modules[norm].num_features
                found = self._follow(norms[0].outputs[0], channels)
                if found and not any(reader == made for reader, _ in found):
                    readers, spans = zip(*found, strict=True)
                    yield Chain(made, norm, readers, spans, channels)

    def _layer(self, call: _Call, kind: type) -> str | None:
        """Return the name of the layer or BN that made this call, if it is of this kind and called once."""
        names = [self.owners[parameter] for parameter in call.parameters if parameter in self.owners]
        function = {nn.Conv2d: "conv2d", nn.Linear: "linear", nn.BatchNorm2d: "batch_norm"}[kind]
        if len(names) != 1 or call.function != function or names[0] not in self.once:
            return None
        return names[0] if isinstance(self.modules[names[0]], kind) else None

    def _follow(self, number: int, channels: int) -> list[tuple[str, int]] | None:
        """Return (reader, columns per channel) of all readers of a value; None if one needs every channel."""
        if number in self.returned or number not in self.readers:
            return None
        found: list[tuple[str, int]] = []
        for call in self.readers[number]:
            further = self._reader(call, number, channels)
            if further is None and _passes(call, channels):
                further = self._follow(call.outputs[0], channels)
            if further is None:
                return None
            found += further
        return found

    def _reader(self, call: _Call, number: int, channels: int) -> list[tuple[str, int]] | None:
        conv, linear = self._layer(call, nn.Conv2d), self._layer(call, nn.Linear)
        form = call.given[0].shape if call.given else ()
        if conv and call.inputs == [number] and len(form) == 4 and form[1] == channels:
            return [(conv, 1)]
        if linear and call.inputs == [number] and len(form) == 2 and form[1] % channels == 0:
            return [(linear, form[1] // channels)]
        return None


def _passes(call: _Call, channels: int) -> bool:
    """Return whether each output channel depends on that channel alone and is zero where it is zero."""
    if len(call.inputs) != 1 or len(call.outputs) != 1 or call.parameters:
        return False
    before, after = call.given[0].shape, call.found[0].shape
    if call.function in ZERO_TO_ZERO:
        return before == after
    if call.function in POOLS:
        return len(before) == len(after) == 4 and before[:2] == after[:2]
    if call.function == "mean":
        over = call.keywords.get("dim", call.arguments[1] if len(call.arguments) > 1 else None)
        over = [over] if isinstance(over, int) else list(over or [0])
        return len(before) == 4 and all(axis % 4 >= 2 for axis in over)
    # A row-major reshape that keeps the batch dimension keeps a channel's entries together.
    return call.function in RESHAPES and after[0] == before[0] and (len(after) == 2 or after[1] == channels)


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d) and module.affine


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _tensors(item)
