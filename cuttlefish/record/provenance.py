"""Provenance of a result: commit, packages, hardware, command and time.

The host's name and its environment are never recorded.
"""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cuttlefish.record.redact import redact_arguments

SOURCE = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "torchvision", "timm", "hydra-core", "omegaconf", "wandb", "numpy", "scipy", "pandas")
COMMIT = "CUTTLEFISH_COMMIT"
"""Environment variable: the commit of a copied source tree, with suffix "-dirty" if the code differs."""
CODE = (".", ":(exclude)results", ":(exclude)*.md")
"""Paths that can change a result. Records, reports and text may change during runs."""


def provenance(device: str, threads: int | None = None) -> dict[str, Any]:
    """Return the record's fields on provenance.

    Args:
        device: torch's device name, such as `cpu` or `cuda:0`.
        threads: Number of CPU threads of torch.
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
    """Return the commit in CUTTLEFISH_COMMIT, else that of the repository that tracks `source`.

    None without either. A copied tree may lie in a repository of another commit, so what is told comes first.
    A surrounding repository that does not track `source` is ignored.
    """
    if told := _told_commit()[0]:
        return told
    return git(source, "rev-parse", "HEAD") if git(source, "ls-files", "--", ".") else None


def git_dirty(source: Path = SOURCE) -> bool | None:
    """Return whether the code, including new files, differs from its commit; None without a commit."""
    commit, dirty = _told_commit()
    if commit or not git(source, "ls-files", "--", "."):
        return bool(dirty) if commit else None
    root = git(source, "rev-parse", "--show-toplevel")
    status = git(Path(root), "status", "--porcelain", "--", *CODE) if root else None
    return None if status is None else status != ""


def _told_commit() -> tuple[str, str]:
    """Return the commit in CUTTLEFISH_COMMIT and its suffix, both "" if unset."""
    commit, _, dirty = os.environ.get(COMMIT, "").partition("-")
    return commit, dirty


def package_versions(names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of the installed packages among `names`, without importing them."""
    found = {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def device_name(device: str, threads: int | None = None) -> str:
    """Return the GPU's name, or the CPU's with the number of cores used: `AMD EPYC 7B13, 2 cores`."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    cores = threads or available_cores()
    return f"{_cpu_model()}, {cores} {'core' if cores == 1 else 'cores'}"


def available_cores() -> int:
    """Return the number of cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def command_line(arguments: Sequence[str], module: str | None = None) -> str:
    """Return the command as typed, without secrets and the machine's folders.

    Args:
        module: Module of `python -m`.
    """
    script, *rest = arguments or [""]
    start = ["python", "-m", module] if module else ["python", Path(script).name]
    return shlex.join([word for word in start if word] + redact_arguments(rest))


def main_module() -> str | None:
    """Return the module if this process was started by `python -m`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec else None


def utc_now() -> str:
    """Return the current time in UTC, ISO 8601 in whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine() or "unknown CPU"


def git(folder: Path, *arguments: str) -> str | None:
    """Return the stripped output of a git command in `folder`; None if git is missing, fails or hangs."""
    # In a git hook GIT_DIR would redirect every call to the hook's repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, env=environment)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
