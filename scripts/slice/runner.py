"""Run steps one after the other, each a process with a time limit; save each result before the next."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from cuttlefish.errors import EXIT_SAVED
from cuttlefish.record.atomic import write_atomic

GRACE = 12.0
"""Seconds that a step has to save its state and end after its time is over."""
AGAIN = ("failed", "timed out")
WORDS = 12
"""Number of output lines kept in a step's result."""


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        limit: Maximum seconds in one slice.
        least: Minimum seconds left to start it.
        why_not: The reason why it cannot run here, if any.
    """

    name: str
    command: Sequence[str]
    limit: float
    least: float = 5.0
    why_not: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def run_steps(
    steps: Sequence[Step],
    out: Path,
    seconds: float,
    *,
    cwd: Path,
    environment: Mapping[str, str],
    after: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Run the steps not yet done in `out`/steps until the time is over; return the result of every step.

    Those that failed or took too long before come after all others, whose turn they would use up again.

    Status: done, failed, timed out, unfinished (saved; continues next time), skipped, not reached.
    """
    deadline, results = monotonic() + seconds, {}
    for step in sorted(steps, key=lambda step: read_result(out, step.name).get("status") in AGAIN):
        result = read_result(out, step.name)
        if result.get("status") != "done":
            left = deadline - monotonic() - GRACE
            if step.why_not:
                result = _write(out, step, "skipped", 0.0, step.why_not)
            elif left < step.least:
                result = result or _write(out, step, "not reached", 0.0, "the slice's time was over")
            else:
                result = _run(step, out, min(step.limit, left), cwd, {**environment, **step.environment})
            after()
        results[step.name] = result
        print(f"{step.name}: {result['status']}, {result['seconds']:.0f} s", flush=True)
    return [results[step.name] for step in steps]


def read_result(out: Path, name: str) -> dict[str, Any]:
    """Return a step's result from `out`; empty if missing or unreadable."""
    return read_json(out / "steps" / f"{name}.json")


def read_json(path: Path) -> dict[str, Any]:
    """Return a file's content; empty if missing or unreadable."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write(out: Path, step: Step, status: str, seconds: float, words: str, **more: Any) -> dict[str, Any]:
    result = {"step": step.name, "status": status, "seconds": seconds, "words": words} | more
    write_atomic(out / "steps" / f"{step.name}.json", json.dumps(result, indent=1) + "\n")
    return result


def _run(step: Step, out: Path, limit: float, cwd: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    log = out / "logs" / f"{step.name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    began = monotonic()
    with log.open("ab") as file:
        child = subprocess.Popen(
            step.command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=cwd,
            env={**os.environ, **environment}, process_group=0,
        )  # fmt: skip
        try:
            _write(out, step, "begun", 0.0, "killed before it came to an end", process=child.pid)
            code, late = _wait(child, limit)
        finally:
            _end(child.pid, signal.SIGKILL)  # including the step's own children
            child.wait()
    status = (
        "done" if code == 0 else "unfinished" if code == EXIT_SAVED else "timed out" if late else "failed"
    )
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    words = "\n".join([f"exit code {code}", *lines[-WORDS:]])
    return _write(out, step, status, monotonic() - began, words)


def _wait(child: subprocess.Popen[bytes], limit: float) -> tuple[int, bool]:
    """Return the exit code, and whether the time ran out first."""
    try:
        return child.wait(limit), False
    except subprocess.TimeoutExpired:
        _end(child.pid, signal.SIGTERM)
    try:
        return child.wait(GRACE), True
    except subprocess.TimeoutExpired:
        _end(child.pid, signal.SIGKILL)
        return child.wait(), True


def _end(group: int, how: signal.Signals) -> None:
    try:
        os.killpg(group, how)
    except ProcessLookupError:
        pass
