"""The main path of a model, and which of its layers may be factorized: all but the first and the head.

Where the model begins with embeddings, these are the first layer. Shortcuts are beside the path.
"""

from collections.abc import Collection

from torch import nn

from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.find import Found, find_layers
from cuttlefish.lowrank.surgery import require_bare
from cuttlefish.lowrank.trace import Batch, Forward, TracedLayer, trace

OUTPUT = "it feeds the model's output"


def main_path(
    model: nn.Module, example: Batch, *, shortcuts: bool = False, forward: Forward | None = None
) -> list[TracedLayer]:
    """Return convolutions and linear layers in execution order, shortcut projections only if asked for.

    Arguments and errors are those of `cuttlefish.lowrank.profiling.profile_stacks`.
    """
    require_bare(model)
    traced = trace(model, example, forward)
    path = [layer for layer in traced if shortcuts or not layer.shortcut]
    found = find_layers(model)
    if not _behind(path, 1, found):
        reasons = found.refused | why_apart(model, traced) | why_dense(model, path, (), 1)
        why = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:3])
        raise CuttlefishError(
            f"this model has no layer to factorize between its first and its last{f' ({why})' if why else ''}"
        )
    return path


def candidates(model: nn.Module, path: list[TracedLayer], k: int = 1) -> list[str]:
    """Return the names of the layers behind the k-th that can be factorized and feed no output.

    Shortcuts in the path are not counted: those executed behind the k-th layer and its successor are among
    the names. Embeddings at the start count as one layer. In a transformer the linear layers behind the last
    one on tokens (BERT's pooler, a pre-classifier) are part of the head.

    Raises CuttlefishError for a k out of range.
    """
    count = embeddings(path) + sum(not layer.shortcut for layer in path)
    if not 0 <= k < count:
        raise CuttlefishError(
            f"K = {k} leading dense layers is out of range: the main path has {count} layers"
        )
    return _behind(path, k, find_layers(model))


def on_tokens(layer: TracedLayer) -> bool:
    """Return whether it is a linear layer on tokens (or other positions), not on one vector a sample."""
    return isinstance(layer.module, nn.Linear) and len(layer.input_shape) > 2


def is_transformer(path: list[TracedLayer], names: Collection[str]) -> bool:
    """Return whether the candidates `names` are linear layers on tokens: section 3.5 factorizes them all."""
    return all(on_tokens(layer) for layer in path if layer.name in names)


def embeddings(path: list[TracedLayer]) -> int:
    """Return the number of layers before the path's first: 1 if that takes in embeddings, else 0."""
    return int(bool(path) and path[0].embedded)


def _behind(path: list[TracedLayer], k: int, found: Found) -> list[str]:
    main = [index for index, layer in enumerate(path) if not layer.shortcut]
    first = max(k, 1) - embeddings(path)
    start = main[first] if first < len(main) else len(path)
    behind = [layer for layer in path[start:] if layer.name in found.layers and not layer.head]
    pooled = _pooled(path, found)
    return [layer.name for layer in behind if layer.name not in pooled]


def _pooled(path: list[TracedLayer], found: Found) -> set[str]:
    """Return the layers of a transformer's head that do not feed the output themselves."""
    possible = [layer for layer in path if layer.name in found.layers and not layer.head]
    last = max((index for index, layer in enumerate(possible) if on_tokens(layer)), default=-1)
    encoder, behind = possible[: last + 1], possible[last + 1 :]
    if not all(map(on_tokens, encoder if embeddings(path) else encoder[1:])):
        return set()
    linear = all(isinstance(layer.module, nn.Linear) for layer in behind)
    return {layer.name for layer in behind} if encoder and linear else set()


def why_apart(model: nn.Module, traced: list[TracedLayer]) -> dict[str, str]:
    """Return dotted name → reason for each layer outside the main path: shortcuts, and what does not run."""
    idle = find_layers(model).layers.keys() - {layer.name for layer in traced}
    shortcut = "it is a 1×1 shortcut (factorize_shortcuts takes those, too)"
    beside = {layer.name: OUTPUT if layer.head else shortcut for layer in traced if layer.shortcut}
    return dict.fromkeys(sorted(idle), "the model does not call it on this batch") | beside


def why_dense(model: nn.Module, path: list[TracedLayer], chosen: Collection[str], k: int) -> dict[str, str]:
    """Return dotted name → reason for each layer of the path that is not among the chosen ones."""
    found = find_layers(model)
    pooled = _pooled(path, found)

    def why(layer: TracedLayer) -> str:
        if layer.name in found.refused:
            return found.refused[layer.name]
        if layer.head:
            return OUTPUT
        if layer.name in pooled:
            return "it works on one vector a sample, behind all tokens, as part of the head"
        return f"it is among the leading dense layers (K = {k})"

    return {layer.name: why(layer) for layer in path if layer.name not in chosen}
