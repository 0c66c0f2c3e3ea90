"""Deaths of a run at a chosen point, simulated or real, and whether the resumed run is the same one."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

from cuttlefish.engine import session
from cuttlefish.engine.saving import checkpoint
from cuttlefish.engine.step import StepRunner
from cuttlefish.engine.timer import Timer
from cuttlefish.record import atomic as files
from cuttlefish.record.provenance import provenance
from cuttlefish.worker import run_config
from tests.helpers.comparing import differences
from tests.helpers.runs import METHODS, little_config

ARMS: dict[str, tuple[str, dict[str, Any]]] = {method: (method, {}) for method in METHODS}
ARMS["cuttlefish_profiled"] = "cuttlefish", {"method__k": "profile", "method__threshold": 1.0}
"""name -> a method and its settings: every method, and one whose K is found and written down before the first
step."""
KINDS = {
    "epoch_": "checkpoint",
    "before_switch": "checkpoint",
    "model.safetensors": "weights",
    "epochs.jsonl": "epochs",
    "run.lock": "run",
}
KINDS |= {kind: kind for kind in ("record", "profile", "ranks", "log", "resolved")}
"""What a file's name begins with -> its name in the table."""


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


@dataclass(frozen=True)
class Trial:
    """phase: where the (first) death fell; problems: what differed after resuming."""

    method: str
    kind: str
    point: int
    phase: str
    kills: int
    problems: str = ""

    @property
    def identical(self) -> bool:
        return not self.problems


class Death:
    """Counts the points that a run passes and strikes at one of them. log: what each point was."""

    def __init__(self, at: int | None = None, strike: Callable[[], None] | None = None):
        self.at, self.strike, self.log, self.dead = at, strike, [], False

    def point(self, phase: str) -> None:
        if self.dead:
            raise Killed
        self.log.append(phase)
        if len(self.log) == self.at:
            self.dead = True
            if self.strike is not None:
                self.strike()
            raise Killed


class Trials:
    """Trials of one of ARMS against its uninterrupted run. count: points of that run."""

    def __init__(self, method: str, root: Path):
        self.method, self.root = method, root
        self._whole: tuple[Path, dict[str, Any]] | None = None
        self._log: list[str] = []

    @property
    def count(self) -> int:
        self._reference()
        return len(self._log)

    def write_points(self) -> list[int]:
        """The points at which something is created, written, flushed, renamed or removed."""
        self._reference()
        return [number for number, phase in enumerate(self._log, 1) if phase.startswith("writing")]

    def draw(self, random: Random) -> int:
        """A random point: every phase is as likely as any other, however few its points are."""
        self._reference()
        phase = random.choice(sorted(set(self._log)))
        return random.choice([number for number, each in enumerate(self._log, 1) if each == phase])

    def killed_at(self, points: list[int], drawn: bool = False) -> Trial:
        """Die at the first of the points, resume, die at the next of it, …; a point beyond a run's end kills
        nothing."""
        folder, phases = self._fresh(), []
        for point in points:
            death = Death(point)
            with suppress(Killed), watched(death):
                self._run(folder)
            if death.dead:
                phases.append(death.log[-1])
        return self._resumed(folder, "random" if drawn else "write", points[0], phases)

    def killed_for_good(self, point: int, kill: Callable[[Path, int], int]) -> Trial:
        """kill: runs this method in a process of its own that dies there; its return code."""
        folder = self._fresh()
        code = kill(folder, point)
        if code != -signal.SIGKILL:
            return Trial(self.method, "real", point, "not killed", 0, f"exit code {code}")
        self._reference()
        return self._resumed(folder, "real", point, [self._log[point - 1]])

    def die_for_good(self, folder: Path, point: int) -> None:
        with watched(Death(point, strike=lambda: os.kill(os.getpid(), signal.SIGKILL))):
            self._run(folder)

    def _resumed(self, folder: Path, kind: str, point: int, phases: list[str]) -> Trial:
        try:
            record = self._run(folder, often=False)
            problems = [f"left over: {path.name}" for path in folder.rglob("*.tmp")]
            problems += differences(folder, record, *self._reference())
        except Exception as error:
            problems = [f"{type(error).__name__}: {error}"]
        shutil.rmtree(folder)
        return Trial(
            self.method,
            kind,
            point,
            phases[0] if phases else "after the end",
            len(phases),
            ", ".join(problems),
        )

    def _reference(self) -> tuple[Path, dict[str, Any]]:
        if self._whole is None:
            folder, death = self.root / "whole", Death()
            with watched(death):
                self._whole = folder, self._run(folder)
            self._log = death.log
        return self._whole

    def _fresh(self) -> Path:
        folder = self.root / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def _run(self, folder: Path, often: bool = True) -> dict[str, Any]:
        """often: a checkpoint after every step too; the more is written, the more there is to tear."""
        minutes = 1e-9 if often else 0.0
        method, settings = ARMS[self.method]
        config = little_config(
            folder,
            method,
            data__train_images=40,
            data__test_images=8,
            trainer__checkpoint_minutes=minutes,
            **settings,
        )
        with redirect_stdout(StringIO()), mock.patch.object(session, "provenance", _origin):
            return run_config(config)


@cache
def _origin(*arguments: Any) -> dict[str, Any]:
    """Asking git anew for each of a thousand runs would take longer than they do."""
    return provenance(*arguments)


@contextmanager
def watched(death: Death) -> Iterator[None]:
    """Have `death` see every point of writing, the beginning and end of every section of the timer, and the
    middle of every step."""
    part, forward, unlink = Timer.section, StepRunner._forward, Path.unlink

    @contextmanager
    def parted(self: Timer, name: str) -> Iterator[None]:
        death.point(_label(name))
        with part(self, name):
            yield
        death.point(_label(name))

    def halfway(self: StepRunner, *arguments: Any) -> Any:
        result = forward(self, *arguments)
        death.point("training: middle of a step")
        return result

    def removed(self: Path, *arguments: Any, **keywords: Any) -> None:
        death.point(f"writing: {_kind(self)}")
        unlink(self, *arguments, **keywords)

    with (
        mock.patch.object(files, "open", lambda path, mode: _Torn(path, mode, death), create=True),
        mock.patch.object(files, "os", _system(death)),
        mock.patch.object(checkpoint, "os", _system(death)),
        mock.patch.object(Timer, "section", parted),
        mock.patch.object(StepRunner, "_forward", halfway),
        mock.patch.object(Path, "unlink", removed),
    ):
        yield


class _Torn:
    """A file whose writes can be cut in the middle."""

    def __init__(self, path: Path, mode: str, death: Death):
        self.phase, self.death = f"writing: {_kind(path)}", death
        death.point(self.phase)
        self.file = open(path, mode, buffering=0)

    def write(self, data: bytes) -> int:
        for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
            self.file.write(piece)
            self.death.point(self.phase)
        return len(data)

    def __enter__(self) -> _Torn:
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def _system(death: Death) -> SimpleNamespace:
    """The `os` of the modules that write, with a point before and after what changes a folder and before each
    flush."""

    def around(function: Callable[..., None]) -> Callable[..., None]:
        def called(source: Any, target: Any) -> None:
            death.point(f"writing: {_kind(target)}")
            function(source, target)
            death.point(f"writing: {_kind(target)}")

        return called

    def fsync(handle: int) -> None:
        death.point(f"writing: {_kind(Path(os.readlink(f'/proc/self/fd/{handle}')))}")

    system = SimpleNamespace(**{name: getattr(os, name) for name in dir(os)})
    system.replace, system.link, system.fsync = around(os.replace), around(os.link), fsync
    return system


def _kind(path: str | Path) -> str:
    name = Path(path).name.lstrip(".")
    return next((kind for start, kind in KINDS.items() if name.startswith(start)), "folder entry")


def _label(part: str) -> str:
    return f"training: {part}"
