"""Runs the most valuable missing runs within a slice of time, each in a process of its own. Needs torch only.

Every start and end is a line of the ledger before anything else happens, so that no started run can go unreported.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cuttlefish.config.validate import load_config
from cuttlefish.data.files import data_there
from cuttlefish.errors import CuttlefishError, Interrupted
from cuttlefish.evidence.records import Collection, load_evidence
from cuttlefish.plan.cost import Estimates
from cuttlefish.plan.execute import needs_run
from cuttlefish.plan.planned_run import PlannedRun
from cuttlefish.plan.state import Known, state_of
from cuttlefish.process.child import run_child
from cuttlefish.process.signals import StopSignals
from cuttlefish.record.folder import read_epochs
from cuttlefish.record.provenance import utc_now

MANIFEST, CONFIGS, LEDGER = "manifest.json", "configs", "ledger.jsonl"
GRACE = 45.0
"""Seconds before the end of the slice at which a run is asked to stop: one step and 10 s, and the packing."""
SHORTEST = 20.0
"""Seconds of training that are worth starting a process for."""


@dataclass(frozen=True)
class Campaign:
    """home: manifest, configs and ledger. root: the code, with runs/ and results/ below it. The same folder in a bundle."""

    home: Path
    root: Path
    runs: tuple[PlannedRun, ...]

    @classmethod
    def read(cls, home: Path, root: Path) -> Campaign:
        """Raises CuttlefishError if there is no manifest."""
        try:
            manifest = json.loads((home / MANIFEST).read_text(encoding="utf-8"))
            return cls(home, root, tuple(_planned(entry, home) for entry in manifest["runs"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CuttlefishError(f"cannot read the campaign in {home}: {error}") from error

    def evidence(self) -> Collection:
        """What was committed, and what was trained here."""
        found = [load_evidence(self.root / folder) for folder in ("results/records", "runs")]
        return Collection(
            [run for part in found for run in part.runs], [left for part in found for left in part.left_out]
        )

    def work(
        self,
        seconds: float,
        start: Callable[[PlannedRun, float], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> int:
        """Runs until the slice is used up or nothing is left; how many were started. start: trains a run for at most so many
        seconds and returns its exit code. Raises Interrupted when asked to stop, once the run under way has ended."""
        end, started = clock() + seconds, set()
        with StopSignals() as stop:
            train = start or partial(self.train, stop=stop)
            while (left := end - clock() - GRACE) >= SHORTEST and not stop.requested:
                collection = self.evidence()
                run = self.next(left, started, collection)
                if run is None:
                    break
                started.add(run.run_key)
                self._note(run, event="started", state=state_of(run, self._known(collection)))
                before = clock()
                code = train(run, left)
                self._note(run, event="ended", exit_code=code, seconds=round(clock() - before, 1))
        if stop.requested:
            raise Interrupted(f"stopped by {stop.requested}; the same command goes on", stop.requested)
        return len(started)

    def next(
        self, left: float, started: Iterable[str] = (), collection: Collection | None = None
    ) -> PlannedRun | None:
        """The most valuable open run that fits into `left` seconds, as far as that is known; else the most valuable one, which
        goes on in the next slice. A failed run is not tried again: its outcome is its record."""
        collection = collection or self.evidence()
        known, estimates = (
            self._known(collection),
            Estimates(self.runs, [run for run in self.runs if run.baseline], collection),
        )
        states = {run.run_key: state_of(run, known) for run in self.runs if run.run_key not in started}
        todo = [
            run
            for run in self.runs
            if needs_run(states.get(run.run_key, "finished")) and states[run.run_key] != "failed"
        ]
        fits = [run for run in todo if self._seconds(run, estimates) <= left]
        return next(iter(fits or todo), None)

    def standing(self) -> str:
        """`44 data absent, 9 finished, 29 waiting for another's size`: all runs by state."""
        known = self._known(self.evidence())
        states = Counter(state_of(run, known) for run in self.runs)
        waiting = sum(states.pop(state) for state in list(states) if state.startswith("waits"))
        return ", ".join(
            f"{number} {state}"
            for state, number in [*sorted(states.items()), ("waiting for another's size", waiting)]
            if number
        )

    def train(self, run: PlannedRun, seconds: float, stop: StopSignals) -> int:
        """In a process of its own, which is asked to save its state after `seconds`, and killed if it does not; its exit code."""
        config = (self.home / CONFIGS / f"{run.run_key}.json").resolve()
        command, env = (
            [sys.executable, "-m", "cuttlefish.worker", str(config)],
            {**os.environ, "PYTHONPATH": str(self.root.resolve())},
        )
        return run_child(command, stop, self.root, env, seconds, 0.7 * GRACE)

    def _seconds(self, run: PlannedRun, estimates: Estimates) -> float:
        """What is left of it; 0 where nothing tells."""
        hours = estimates.hours(run)
        done = len(read_epochs(self.root / run.folder)) / run.epochs if run.epochs else 0.0
        return 0.0 if hours is None else 3600 * hours * max(0.0, 1 - done)

    def _known(self, collection: Collection) -> Known:
        return Known.of(collection.runs, self.root)

    def _note(self, run: PlannedRun, **what: Any) -> None:
        line = {
            "time": utc_now(),
            "run_key": run.run_key,
            "run": f"{run.title} · {run.model} · {run.data} · seed {run.seed}",
            "folder": run.folder,
        }
        with open(self.home / LEDGER, "a", encoding="utf-8") as file:
            file.write(json.dumps(line | what) + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(
            " · ".join(f"{key} {value}" for key, value in (line | what).items() if key != "folder"),
            flush=True,
        )


def _planned(entry: dict[str, Any], home: Path) -> PlannedRun:
    """From JSON; whether its data is there is asked of this machine."""
    lists = {name: tuple(entry[name]) for name in ("kinds", "words")} | {
        "point": tuple(tuple(pair) for pair in entry["point"])
    }
    run = PlannedRun(**{**entry, **lists})
    config = load_config(json.loads((home / CONFIGS / f"{run.run_key}.json").read_text(encoding="utf-8")))
    return replace(run, data_there=data_there(config.data))
