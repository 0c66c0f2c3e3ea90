"""Device, threads, numeric precision and determinism of a run."""

import ctypes
import os
import resource
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch

from cuttlefish.config.schema import TrainerConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.record.provenance import available_cores

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
KEEP_BYTES, TOP_PAD_BYTES = 2**31 - 1, 64 * 2**20


PER_CORE = 2
"""The most processes of one run per core: more would only wait for each other."""


def choose_device(config: TrainerConfig, process: int = 0) -> torch.device:
    """Return the device of this process. Raises CuttlefishError if a requested GPU is absent."""
    if config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise CuttlefishError(
            "trainer.device=cuda, but torch sees no GPU on this machine: use trainer.device=cpu or auto"
        )
    if process >= torch.cuda.device_count():
        raise CuttlefishError(
            f"trainer.devices={config.devices}, but this machine has {torch.cuda.device_count()} GPUs"
        )
    torch.cuda.set_device(process)
    return torch.device("cuda", process)


def check_devices(config: TrainerConfig) -> None:
    """Raise CuttlefishError if a run asks for more processes than this machine can support."""
    cores, on_cpu = available_cores(), choose_device(config).type == "cpu"
    if on_cpu and config.devices > max(PER_CORE * cores, 2):
        raise CuttlefishError(
            f"trainer.devices={config.devices} processes are too many for the {cores} cores of this machine; "
            f"choose {max(PER_CORE * cores, 2)} at most"
        )


def set_up(config: TrainerConfig, device: torch.device, seed: int, neighbours: int = 1) -> None:
    """Apply the process-wide settings of a run.

    Each is set explicitly, on or off, because one process may train several runs.

    Args:
        neighbours: Number of processes of this run on this machine, which share its cores.
    """
    if device.type == "cpu":
        keep_memory()
    if config.precision == "tf32" and device.type != "cuda":
        raise CuttlefishError("trainer.precision=tf32 exists on GPUs only: use fp32 or bf16 on a CPU")
    own = own_threads() if neighbours == 1 else max(available_cores() // neighbours, 1)
    torch.set_num_threads(config.threads or own)
    torch.backends.cuda.matmul.allow_tf32 = config.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = config.precision == "tf32"
    torch.backends.cudnn.benchmark = not config.deterministic
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if torch.are_deterministic_algorithms_enabled() != config.deterministic:  # the call imports inductor
        torch.use_deterministic_algorithms(config.deterministic)
    torch.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def keep_memory() -> bool:
    """Keep glibc from returning freed large tensors to the kernel, which costs page faults in every step.

    Call it before the first tensor is allocated.

    Returns:
        False if the C library has no mallopt.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: KEEP_BYTES, M_TOP_PAD: TOP_PAD_BYTES}
    return all([mallopt(parameter, value) for parameter, value in wanted.items()])


@cache
def own_threads() -> int:
    """Return torch's default number of CPU threads in this process."""
    return torch.get_num_threads()


def autocast(config: TrainerConfig, device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if config.precision == "bf16" else nullcontext()


def element_type(config: TrainerConfig) -> torch.dtype:
    """Return the element type of weights and images."""
    return torch.float64 if config.precision == "fp64" else torch.float32


def peak_memory(device: torch.device) -> int:
    """Return the peak in bytes: of the GPU's allocator, or of this process's resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
