"""The random state of a run's processes, as tensors that a checkpoint can hold."""

import torch
from torch import Tensor

from cuttlefish.engine.distributed import World


def random_state(device: torch.device) -> dict[str, Tensor]:
    """This process's."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(
    first: dict[str, Tensor], others: list[dict[str, Tensor]], world: World, device: torch.device
) -> None:
    """Take up this process's state. Where the run had fewer processes, the new ones keep their own."""
    states = [first, *others]
    if world.process >= len(states):
        return
    torch.set_rng_state(states[world.process]["cpu"])
    if device.type == "cuda" and "cuda" in states[world.process]:
        torch.cuda.set_rng_state(states[world.process]["cuda"], device)
