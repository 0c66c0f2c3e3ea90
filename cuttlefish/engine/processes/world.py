"""The processes that train one model together; one process is the simple case."""

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
"""In a worker's environment if its launcher is ours, which says itself what ended the job."""
ALONE = "lost the others"
SPARE_SECONDS = 5
"""After the time-out, for torch to find by itself that nobody answers."""
LOST = ("gloo", "nccl", "connection", "timed out", "timeout", "socket", "broken pipe", "recv", "rendezvous")
"""Words of the errors (plain RuntimeErrors, many of them) by which torch says that another process did not
answer."""


@dataclass(frozen=True)
class World:
    """All processes of a run. A call that exchanges something must be made by all of them, in the same order.

    Attributes:
        process: This one's index, 0 … processes − 1.
        local: Its index on this machine.
        local_processes: How many there are on this machine.
    """

    process: int = 0
    processes: int = 1
    local: int = 0
    local_processes: int = 1

    @property
    def is_first(self) -> bool:
        return self.process == 0

    def broadcast_object(self, value: Any) -> Any:
        """Return the first process's value, on every process."""
        if self.processes == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, in the order of processes."""
        if self.processes == 1:
            return [value]
        values: list[Any] = [None] * self.processes
        dist.all_gather_object(values, value)
        return values

    def all_reduce_max(self, value: int) -> int:
        """Return the largest of the processes' values, exchanged on the host so that no GPU is waited for."""
        if self.processes == 1:
            return int(value)
        box = torch.tensor([int(value)])
        dist.all_reduce(box, op=dist.ReduceOp.MAX)
        return int(box)

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over processes, in place."""
        if self.processes > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Give all processes the first's buffers (batch norm's statistics, which each has from its own
        share)."""
        if self.processes > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Return what the step calls: `model`, or DDP around it, which also broadcasts the first's
        weights."""
        if self.processes == 1:
            return model
        ids = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)


def under_launcher() -> bool:
    """Say whether this process was started by torchrun or by our own launcher, as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def write_error_file(error: BaseException) -> bool:
    """Leave what ended this worker where its launcher looks for it. Returns False where that is
    impossible."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is None:
        return False
    details = {"py_callstack": "".join(traceback.format_exception(error)), "timestamp": str(int(time.time()))}
    message = {"message": str(error) or type(error).__name__, "extraInfo": details}
    try:
        write_atomic(path, json.dumps({"message": message}))
    except OSError:  # it may be the full disk that has ended the worker
        return False
    return True


def report_error(error: BaseException) -> None:
    """Hand the sentence to our launcher, or print it for a person."""
    if not write_error_file(error) or TELLS not in os.environ:
        print(f"cuttlefish: {error}", file=sys.stderr, flush=True)


@contextmanager
def joined_world(config: TrainerConfig) -> Iterator[World]:
    """Connect the processes that the environment (RANK, WORLD_SIZE, …) describes: gloo on CPUs, NCCL on GPUs.

    Raises:
        CuttlefishError: Another process was waited for longer than `trainer.timeout_minutes`, or its
            connection was cut.
    """
    if not under_launcher() or os.environ["WORLD_SIZE"] == "1":
        yield World()
        return
    end_with_parent()  # where the kernel has no such call, the time-out ends it
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
    dist.destroy_process_group()  # not after a failure: it would wait for processes that are gone


@contextmanager
def _lost_processes_explained(world: World, config: TrainerConfig) -> Iterator[None]:
    """Turn what torch says of processes that have died, hang or cannot be reached into one sentence."""
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        said = " ".join(str(error).split())
        if not isinstance(error, dist.DistError) and not any(word in said.lower() for word in LOST):
            raise
        raise _alone(world, config, said) from error


@contextmanager
def _connected_in_time(world: World, config: TrainerConfig) -> Iterator[None]:
    """End this process if the others are not met within the time-out.

    Some of what torch asks its store then has no time-out of its own: an answer that never comes, because the
    network was cut just then, would be waited for until the kernel gives the connection up.
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
