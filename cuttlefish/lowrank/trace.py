"""What a model really executes: its convolutions and linear layers in order, with shapes and roles.

Layers are found by looking at one forward pass, never by their names or positions in the state dict.
"""

import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.find import find_layers

NORMS = (nn.modules.batchnorm._BatchNorm,)

EMBEDDINGS = (torch.ops.aten.embedding.default, torch.ops.aten._embedding_bag.default)
"""Look-ups of vectors by index: what nn.Embedding, nn.EmbeddingBag and their functional forms execute."""

Batch = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]
"""A model's inputs: one tensor, several by position (a tuple or list) or several by name (a mapping)."""

Forward = Callable[[nn.Module, Any], Any]
"""Calls the model on a batch."""


@dataclass
class TracedLayer:
    """One executed layer. Shapes are those of one forward pass of the traced batch (batch dimension first).

    shortcut: a 1×1 convolution beside the main path, as in residual blocks: its input feeds another one, too.
    normalised: a batch norm takes its output directly.
    head: no other layer takes in what it computes, directly or through other operations: it feeds an output.
    embedded: it takes in embeddings, directly or through other operations but no other layer.
    """

    name: str
    module: nn.Conv2d | nn.Linear
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    shortcut: bool = False
    normalised: bool = False
    head: bool = False
    embedded: bool = False


def call_model(model: nn.Module, batch: Batch) -> Any:
    """Return model(batch) of a tensor, model(*batch) of a tuple or list, model(**batch) of a mapping."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple | list) else model(batch)


def first_tensor(batch: Batch) -> Tensor:
    """Return the batch's first tensor, which has the batch's size. Raises CuttlefishError without one."""
    tensor = next((tensor for tensor in _tensors(_plain(batch)) if tensor.ndim), None)
    if tensor is None:
        raise CuttlefishError(
            f"The batch is a {type(batch).__name__} without a tensor; "
            "give the model's inputs as a tensor, a tuple or a mapping of tensors."
        )
    return tensor


def first_samples(batch: Batch, count: int) -> Batch:
    """Return the batch cut to its first samples: all tensors with the batch's size in dimension 0."""
    size = len(first_tensor(batch))

    def cut(value: Any) -> Any:
        return value[:count] if isinstance(value, Tensor) and value.ndim and len(value) == size else value

    return tree_map(cut, _plain(batch))


@torch.no_grad()
def trace(model: nn.Module, example: Batch, forward: Forward | None = None) -> list[TracedLayer]:
    """Return convolutions and linear layers in the order of their first execution on `example`.

    Runs the model in eval mode, as `forward` says (by default `call_model`): on two samples, or on the whole
    batch if it does not run on two of them (a list of images, a graph) or runs further layers on all (experts
    behind a router). Weights, statistics and modes are as before afterwards.
    """
    run, whole, failure = forward or call_model, _plain(example), None
    for samples in (first_samples(example, 2), whole):
        try:
            layers = _traced(model, samples, run)
            if samples is whole or not _runs_more(model, {layer.name for layer in layers}, whole, run):
                return layers
        except CuttlefishError:
            raise
        except Exception as error:
            failure = error
    remedy = "make forward= fit both" if forward else "give its inputs, or say by forward= how to call it"
    raise CuttlefishError(
        f"the model does not run on the batch ({type(failure).__name__}: {failure}): {remedy}"
    ) from failure


def _runs_more(model: nn.Module, called: set[str], batch: Batch, run: Forward) -> bool:
    """Return whether the batch runs layers that could be factorized, beside the called ones."""
    ran: set[nn.Module] = set()
    idle = [layer for name, layer in find_layers(model).layers.items() if name not in called]
    with register_module_forward_hook(lambda module, *_: ran.add(module)), evaluating(model), eager():
        if idle:
            run(model, batch)
    return not ran.isdisjoint(idle)


def _traced(model: nn.Module, samples: Batch, run: Forward) -> list[TracedLayer]:
    calls, normalised, flow, handles = [], set(), Flow(), []

    def watch(name: str, module: Any) -> None:
        def hook(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
            x = inputs[0] if inputs else next(iter(named.values()))
            if isinstance(module, NORMS):
                normalised.add(id(x))
            else:
                flow.enter(len(calls), x, output)
                calls.append(Call(name, module, x, output))

        handles.append(module.register_forward_hook(hook, with_kwargs=True))

    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, *NORMS)):
            watch(name, module)
    try:
        with evaluating(model), eager(), flow:
            run(model, samples)
    finally:
        for handle in handles:
            handle.remove()
    return _layers(calls, normalised, flow)


@dataclass(frozen=True)
class Call:
    """One execution of a layer. It keeps both tensors alive, so that an id names one tensor."""

    name: str
    module: nn.Conv2d | nn.Linear
    x: Tensor
    output: Tensor


EMBEDDED = -1
"""Stands for all embeddings among the numbers of calls."""


class Flow(TorchDispatchMode):
    """Follows through all of torch's operations on which layers' outputs, and embeddings, a tensor depends.

    read: the calls whose output another call has taken in.
    embedded: the calls that have taken in embeddings.
    """

    def __init__(self) -> None:
        super().__init__()
        self.read: set[int] = set()
        self.embedded: set[int] = set()
        self.sources: dict[int, set[int]] = {}
        self.alive: list[Any] = []

    def enter(self, call: int, x: Tensor, output: Tensor) -> None:
        read = self.sources.get(self._storage(x), set())
        self.read |= read
        if EMBEDDED in read:
            self.embedded.add(call)
        self.sources[self._storage(output)] = {call}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from importing its compiler (1.7 s) to leave this out of graphs: `eager` does that."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [self.sources.get(self._storage(tensor)) for tensor in _tensors((args, kwargs))]
        sources = set().union(*filter(None, inputs), {EMBEDDED} if func in EMBEDDINGS else ())
        for tensor in _tensors(result) if sources else ():
            self.sources[self._storage(tensor)] = sources
        return result

    def _storage(self, tensor: Tensor) -> int:
        """Return what all views of a tensor share, and keep it alive, so that it names nothing else later."""
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):  # sparse and opaque tensors have none
            self.alive.append(tensor)
            return id(tensor)
        self.alive.append(storage)
        return storage._cdata


def _layers(calls: list[Call], normalised: set[int], flow: Flow) -> list[TracedLayer]:
    readers: dict[int, list[nn.Conv2d]] = {}
    for call in calls:
        if isinstance(call.module, nn.Conv2d):
            readers.setdefault(id(call.x), []).append(call.module)
    heads = {call.name for index, call in enumerate(calls) if index not in flow.read}
    layers: dict[str, TracedLayer] = {}
    for index, call in enumerate(calls):
        layer = TracedLayer(
            call.name,
            call.module,
            tuple(call.x.shape),
            tuple(call.output.shape),
            isinstance(call.module, nn.Conv2d) and _is_shortcut(call.module, readers[id(call.x)]),
            id(call.output) in normalised,
            call.name in heads,
            index in flow.embedded,
        )
        layers.setdefault(call.name, layer)
    return list(layers.values())


def _is_shortcut(module: nn.Conv2d, readers: list[nn.Conv2d]) -> bool:
    """Return whether another reader is the main path: larger kernel, else fewer channels, else the first."""
    main = min(readers, key=lambda conv: (-conv.kernel_size[0] * conv.kernel_size[1], conv.out_channels))
    return module.kernel_size == (1, 1) and module is not main


def _plain(batch: Batch) -> Batch:
    return dict(batch) if isinstance(batch, Mapping) else batch


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def eager() -> AbstractContextManager[object]:
    """Run compiled modules, in place or inside a model, as written: graphs hide layers."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Set eval mode inside, and put back every module's own mode after."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
