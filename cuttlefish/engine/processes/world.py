"""The processes that train one model together, possibly only one."""

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cuttlefish.config.schema import TrainerConfig
from cuttlefish.errors import EXIT_BAD_INPUT, CuttlefishError
from cuttlefish.process.signals import end_with_parent
from cuttlefish.record.atomic import write_atomic

TELLS = "CUTTLEFISH_LAUNCHER_TELLS"
"""Environment variable that our launcher sets in its workers: the launcher reports their errors."""
ALONE = "lost the others"
SPARE_SECONDS = 5
"""Grace after the time-out, in which torch may detect the lost process itself."""
LOST = ("gloo", "nccl", "connection", "timed out", "timeout", "socket", "broken pipe", "recv", "rendezvous")
"""Words in torch's errors (often plain RuntimeErrors) that mean another process did not answer."""


@dataclass(frozen=True)
class World:
    """All processes of a run. Collective calls must be made by all of them in the same order.

    Attributes:
        process: Index of this process, 0 … processes − 1.
        local: Index of this process on its machine.
        local_processes: Number of processes on this machine.
    """

    process: int = 0
    processes: int = 1
    local: int = 0
    local_processes: int = 1

    @property
    def is_first(self) -> bool:
        return self.process == 0

    def broadcast_object(self, value: Any) -> Any:
        """Return the first process's value on every process."""
        if self.processes == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, ordered by process index."""
        if self.processes == 1:
            return [value]
        values: list[Any] = [None] * self.processes
        dist.all_gather_object(values, value)
        return values

    def all_reduce_max(self, value: int) -> int:
        """Return the maximum over processes, exchanged on the host to avoid waiting for a GPU."""
        if self.processes == 1:
            return int(value)
        box = torch.tensor([int(value)])
        dist.all_reduce(box, op=dist.ReduceOp.MAX)
        return int(box)

    def sum(self, tensor: Tensor) -> Tensor:
        """All-reduce a tensor by sum, in place."""
        if self.processes > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Broadcast the first process's buffers (batch norm's statistics differ between shares)."""
        if self.processes > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Return `model`, or with several processes DDP around it, which broadcasts the first's weights."""
        if self.processes == 1:
            return model
        ids = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)


def under_launcher() -> bool:
    """Return whether this process was started by torchrun or by our own launcher."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def write_error_file(error: BaseException) -> bool:
    """Write this worker's error where its launcher looks for it; return False if that fails."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is None:
        return False
    details = {"py_callstack": "".join(traceback.format_exception(error)), "timestamp": str(int(time.time()))}
    message = {"message": str(error) or type(error).__name__, "extraInfo": details}
    try:
        write_atomic(path, json.dumps({"message": message}))
    except OSError:  # the disk may be full, which may be what ended the worker
        return False
    return True


def report_error(error: BaseException) -> None:
    """Pass the error message to our launcher, or print it."""
    if not write_error_file(error) or TELLS not in os.environ:
        print(f"cuttlefish: {error}", file=sys.stderr, flush=True)


@contextmanager
def joined_world(config: TrainerConfig) -> Iterator[World]:
    """Connect the processes that the environment (RANK, WORLD_SIZE, …) describes: gloo on CPUs, NCCL on GPUs.

    Raises:
        CuttlefishError: Another process did not answer within `trainer.timeout_minutes`, or its connection
            was lost.
    """
    if not under_launcher() or os.environ["WORLD_SIZE"] == "1":
        yield World()
        return
    end_with_parent()  # without such a kernel call the time-out ends it
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    world = World(*(int(os.environ.get(name, default)) for name, default in zip(names, "0101", strict=True)))
    on_gpus = config.device != "cpu" and torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(world.local % torch.cuda.device_count())
    with _lost_processes_explained(world, config):
        with _connected_in_time(world, config):
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=timedelta(minutes=config.timeout_minutes)
            )
        yield world
    dist.destroy_process_group()  # not after a failure: it would wait for dead processes


@contextmanager
def _lost_processes_explained(world: World, config: TrainerConfig) -> Iterator[None]:
    """Turn torch's errors about dead, hanging or unreachable processes into one CuttlefishError."""
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        said = " ".join(str(error).split())
        if not isinstance(error, dist.DistError) and not any(word in said.lower() for word in LOST):
            raise
        raise _alone(world, config, said) from error


@contextmanager
def _connected_in_time(world: World, config: TrainerConfig) -> Iterator[None]:
    """End this process if it cannot connect to the others within the time-out.

    Some of torch's requests to its store have no time-out: if the network fails at that moment, they block
    until the kernel closes the connection.
    """

    def give_up() -> None:
        report_error(_alone(world, config, "the meeting point has fallen silent"))
        os._exit(EXIT_BAD_INPUT)  # the main thread cannot be interrupted

    timer = threading.Timer(60 * config.timeout_minutes + SPARE_SECONDS, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _alone(world: World, config: TrainerConfig, said: str) -> CuttlefishError:
    return CuttlefishError(
        f"process {world.process} of {world.processes} {ALONE}: one has died, hangs, cannot be reached or "
        f"was slower than trainer.timeout_minutes={config.timeout_minutes:g}; the same command goes on from "
        f"the last checkpoint ({said[:160]})"
    )
