"""Run several processes of `python -m cuttlefish.worker resolved.yaml` with torch's elastic launcher.

Hydra never runs in a worker. The rendezvous listens on the loopback interface only; for several machines use
torchrun with the same worker and file.
"""

import logging
import os
import signal
import socket
import sys
import uuid
from contextlib import suppress
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from torch.distributed import PrefixStore, TCPStore
from torch.distributed.elastic.multiprocessing import PContext, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from cuttlefish.config.schema import TrainerConfig
from cuttlefish.engine.processes.world import ALONE, TELLS
from cuttlefish.errors import EXIT_BAD_INPUT, EXIT_BUSY, EXIT_SAVED, Busy, CuttlefishError, Interrupted
from cuttlefish.process import signals

logger = logging.getLogger("cuttlefish")

LOOPBACK = "127.0.0.1"
BACKEND = "loopback"
GRACE_SECONDS = 30
"""Time for the workers to save after a request to stop, besides the step that they finish first."""


class StopSignals(signals.StopSignals):
    """Forward the first signal to the workers and wait for them; kill them on a second Ctrl-C."""

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested is None:
            self.requested = signal.Signals(number).name
            raise SignalException(f"stopped by {self.requested}", signal.Signals(number))
        if number == signal.SIGINT:
            # torch does not expose the workers, but a frame that waits for them is on the stack
            while frame is not None and not isinstance(frame.f_locals.get("self"), PContext):
                frame = frame.f_back
            for pid in frame.f_locals["self"].pids().values() if frame else ():
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            raise KeyboardInterrupt


class LoopbackRendezvous(RendezvousHandler):
    """Rendezvous of one machine's workers: a store that is unreachable from outside."""

    def __init__(self, run_id: str):
        self.run_id, self.rounds = run_id, 0
        listener = socket.create_server((LOOPBACK, 0))
        self.port = listener.getsockname()[1]
        # Pass a listening socket to the store, which would otherwise listen on all interfaces.
        self.store = TCPStore(
            LOOPBACK,
            self.port,
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=60),
            master_listen_fd=listener.detach(),
        )

    def get_backend(self) -> str:
        return BACKEND

    @property
    def use_agent_store(self) -> bool:
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        self.rounds += 1
        store = PrefixStore(f"{self.run_id}/{self.rounds}", self.store)
        return RendezvousInfo(store, 0, 1, RendezvousStoreInfo(LOOPBACK, self.port))

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None: ...

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self.run_id

    def shutdown(self) -> bool:
        return True


def _patience(seconds: int) -> dict[str, int]:
    """Return the argument for how long the launcher waits for workers that were asked to end.

    Before PyTorch 2.12 there is none, and a worker whose step takes longer than 30 s is killed.
    """
    known = {field.name for field in fields(LaunchConfig)}
    return {"shutdown_timeout": seconds} if "shutdown_timeout" in known else {}


def launch(resolved: Path, config: TrainerConfig) -> None:
    """Train resolved.yaml with `config.devices` processes and wait for them.

    If one dies or hangs, all restart from the last checkpoint, at most `config.max_restarts` times, except
    after bad input, a diverged loss or a request to stop, where a restart would end the same way.

    Raises:
        CuttlefishError: The input is bad, or a process died.
        Busy, Interrupted: The workers ended with this error.
    """
    if BACKEND not in rendezvous_handler_registry._registry:
        rendezvous_handler_registry.register(BACKEND, _meeting)
    plan = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=config.devices, run_id=uuid.uuid4().hex,
        rdzv_backend=BACKEND, rdzv_endpoint=LOOPBACK, local_addr=LOOPBACK, max_restarts=0,
        monitor_interval=0.2, signals_to_handle="",
        **_patience(int(60 * config.timeout_minutes) + GRACE_SECONDS),  # a step may take that long
    )  # fmt: skip
    # The error that we raise replaces its long log output.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    before = dict(os.environ)
    os.environ.update(_environment())
    try:
        with StopSignals():
            for restarts in range(config.max_restarts + 1):
                try:
                    elastic_launch(plan, sys.executable)("-m", "cuttlefish.worker", str(resolved.absolute()))
                    return
                except ChildFailedError as error:
                    ended = _what_happened(error.failures, config, restarts)
                    if restarts == config.max_restarts or not _may_go_better(error.failures):
                        raise ended from error
                    logger.warning("%s: restart %d of %d", ended, restarts + 1, config.max_restarts)
    except SignalException as error:
        sentence = f"stopped by {error.sigval.name}; the same command goes on from the last checkpoint"
        raise Interrupted(sentence, error.sigval.name) from error
    finally:
        os.environ.clear()
        os.environ.update(before)


def _meeting(parameters: RendezvousParameters) -> RendezvousHandler:
    return LoopbackRendezvous(parameters.run_id)


def _environment() -> dict[str, str]:
    """Return environment variables to add for the workers; variables that the user has set are kept."""
    source = str(Path(__file__).resolve().parents[3])
    paths = [source, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    ours = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    unset = {key: value for key, value in ours.items() if key not in os.environ and sys.platform == "linux"}
    return {TELLS: "1", **unset, "PYTHONPATH": os.pathsep.join(paths)}


def _may_go_better(failures: dict[int, ProcessFailure]) -> bool:
    failure = failures[_first_cause(failures)]
    return failure.exitcode not in (EXIT_BAD_INPUT, EXIT_BUSY, EXIT_SAVED) or ALONE in _told(failure)


def _what_happened(
    failures: dict[int, ProcessFailure], config: TrainerConfig, restarts: int = 0
) -> BaseException:
    process = _first_cause(failures)
    failure = failures[process]
    told = _told(failure)
    silent = ", ".join(str(other) for other in failures if _ended_late(failures[other], failures))
    if silent and failure.exitcode == EXIT_BAD_INPUT:
        told += f" (process {silent} of {config.devices} answered nothing, not even a request to stop)"
    kinds = {EXIT_BAD_INPUT: CuttlefishError, EXIT_BUSY: Busy, EXIT_SAVED: Interrupted}
    this = f"process {process} of {config.devices}"
    if failure.exitcode in kinds:
        sentence = told or f"{this} ended with exit code {failure.exitcode}, as it says above"
        return kinds[failure.exitcode](sentence)
    end = f"failed ({told or 'as it says above'})"
    if failure.exitcode < 0:
        end = f"was killed by {signal.Signals(-failure.exitcode).name}"
    again = f" after {restarts} restart{'s' * (restarts > 1)}" if restarts else ""
    return CuttlefishError(
        f"{this} {end}{again}, and the others were stopped; the same command goes on from the last checkpoint"
    )


def _first_cause(failures: dict[int, ProcessFailure]) -> int:
    """Return the index of the process that failed first.

    The others lose their connections to a killed one and may be reported before it; processes that the
    launcher ended (SIGTERM, then SIGKILL) are not the cause.
    """

    def order(process: int) -> tuple[int, int]:
        failure = failures[process]
        if failure.exitcode == -signal.SIGTERM or _ended_late(failure, failures):
            return 3, failure.timestamp
        return int(failure.exitcode >= 0) + int(ALONE in _told(failure)), failure.timestamp

    return min(failures, key=order)


def _ended_late(failure: ProcessFailure, failures: dict[int, ProcessFailure]) -> bool:
    """Return whether it had to be killed because it did not stop with the others on request."""
    return failure.timestamp - min(other.timestamp for other in failures.values()) >= GRACE_SECONDS / 2


def _told(failure: ProcessFailure) -> str:
    """Return the worker's error message; empty if it left none."""
    data: Any = failure.error_file_data["message"]
    return data["message"] if isinstance(data, dict) else ""
