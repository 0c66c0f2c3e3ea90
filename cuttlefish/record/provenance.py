"""Where a result came from: the commit, the packages, the hardware, the command and the time.

Never the host's name or its environment.
"""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cuttlefish.record.redact import redact_arguments

SOURCE = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "torchvision", "timm", "hydra-core", "omegaconf", "wandb", "numpy", "scipy", "pandas")
COMMIT = "CUTTLEFISH_COMMIT"
"""Variable of the environment: the commit, with "-dirty" behind it if the code differed from it."""
CODE = (".", ":(exclude)results", ":(exclude)*.md")
"""What can change a result. Records, reports and text are written while runs go on, and make no code
dirty."""


def provenance(device: str, threads: int | None = None) -> dict[str, Any]:
    """Return the record's fields on origin.

    Args:
        device: torch's name of it, as in `cpu` or `cuda:0`.
        threads: Those that torch computes with.
    """
    return {
        "git_commit": git_commit(),
        "git_dirty": git_dirty(),
        "packages": package_versions(),
        "device": device_name(device, threads),
        "device_type": device.partition(":")[0],
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
        "command": command_line(sys.argv, main_module()),
        "started": utc_now(),
    }


def git_commit(source: Path = SOURCE) -> str | None:
    """Return the commit of the repository that tracks `source`, or the one a copy was told to be of.

    None without either, or where an unrelated repository surrounds it.
    """
    tracked = git(source, "ls-files", "--", ".")
    return git(source, "rev-parse", "HEAD") if tracked else _told_commit()[0] or None


def git_dirty(source: Path = SOURCE) -> bool | None:
    """Tell whether the code differs from its commit (new files count); None where there is no commit."""
    if not git(source, "ls-files", "--", "."):
        commit, dirty = _told_commit()
        return bool(dirty) if commit else None
    root = git(source, "rev-parse", "--show-toplevel")
    status = git(Path(root), "status", "--porcelain", "--", *CODE) if root else None
    return None if status is None else status != ""


def _told_commit() -> tuple[str, str]:
    """Return the commit of code that lies on a machine without its repository, and what follows if it was dirty."""
    commit, _, dirty = os.environ.get(COMMIT, "").partition("-")
    return commit, dirty


def package_versions(names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of those that are installed, read without importing them."""
    found = {name: _version(name) for name in names}
    return {name: number for name, number in found.items() if number is not None}


def device_name(device: str, threads: int | None = None) -> str:
    """Return the GPU's name, or the CPU's with the number of cores computed on: `AMD EPYC 7B13, 2 cores`."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    cores = threads or available_cores()
    return f"{_cpu_model()}, {cores} {'core' if cores == 1 else 'cores'}"


def available_cores() -> int:
    """Count the cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def command_line(arguments: Sequence[str], module: str | None = None) -> str:
    """Return the command as one would type it, without secrets and the machine's folders.

    Args:
        module: That of `python -m`.
    """
    script, *rest = arguments or [""]
    start = ["python", "-m", module] if module else ["python", Path(script).name]
    return shlex.join([word for word in start if word] + redact_arguments(rest))


def main_module() -> str | None:
    """Return the module this process was started with by `python -m`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec else None


def utc_now() -> str:
    """Return the time now: ISO 8601, whole seconds, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine() or "unknown CPU"


def git(folder: Path, *arguments: str) -> str | None:
    """Return a git command's output in `folder`, without blanks around it; None if git is missing, fails or
    hangs."""
    # A hook's GIT_DIR would point every call at the hook's own repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
