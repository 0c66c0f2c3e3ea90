"""Objects of a training script that still hold the weights from before the switch."""

import gc
from collections.abc import Iterator

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler

from cuttlefish.auto.follow.average import inner_model
from cuttlefish.auto.switch import Replaced


def leftovers(replaced: list[Replaced], followed: list[nn.Module]) -> Iterator[str]:
    """Yield a sentence for each scheduler, average, DDP or other model that the switch has left behind.

    All living Python objects are looked at, which takes a part of a second.
    """
    gc.collect()
    old = {id(parameter) for entry in replaced if (parameter := entry.parameter()) is not None}
    new = {id(parameter) for entry in replaced for parameter in entry.new.values()}
    dense = {id(layer): entry.name for entry in replaced if (layer := entry.dense()) is not None}
    stale = renewed = False
    for thing in gc.get_objects():
        kind = type(thing)  # no isinstance: proxies answer it by running code
        if _is_scheduler(kind) and _holds(getattr(thing, "optimizer", None), old):
            yield (
                f"a {kind.__name__} still drives the optimizer from before the switch: make it again for the "
                "new one, or keep the optimizer by cf.optimizer()"
            )
        elif issubclass(kind, DistributedDataParallel):
            wrapped = {id(parameter) for parameter in getattr(thing, "_module_parameters", [])}
            stale, renewed = stale or bool(wrapped & old), renewed or bool(wrapped & new)
        elif _is_average(kind) and thing not in followed and _is_dense(thing, replaced):
            yield (
                f"a {kind.__name__} still averages the dense weights: register it by cf.follow() before the "
                "switch"
            )
        elif dense and issubclass(kind, nn.Module):
            children = vars(thing).get("_modules", {}).values()
            for name in (dense[id(child)] for child in children if id(child) in dense):
                yield (
                    f"a {kind.__name__} outside the model shared {name} and still has the dense one: leave "
                    "it dense (dense=), or share a module that holds it"
                )
    if stale and not renewed:
        yield "a DistributedDataParallel from before the switch is alive: wrap the model in a new one"


def _is_scheduler(kind: type) -> bool:
    return issubclass(kind, LRScheduler) or str(getattr(kind, "__module__", "")).startswith("timm.scheduler")


def _holds(optimizer: object, old: set[int]) -> bool:
    groups = getattr(optimizer, "param_groups", [])
    return any(id(parameter) in old for group in groups for parameter in group["params"])


def _is_average(kind: type) -> bool:
    name = kind.__name__
    return issubclass(kind, nn.Module) and ("Average" in name or "Ema" in name or "EMA" in name)


def _is_dense(average: nn.Module, replaced: list[Replaced]) -> bool:
    """Return whether an average holds all weights as they were before the switch, by name and shape."""
    shapes = {name: parameter.shape for name, parameter in inner_model(average).named_parameters()}
    return all(shapes.get(e.name) == e.layer.weight_shape for e in replaced if e.layer is not None)
