"""One arm of `make bench methods`: a real run whose steps, once its method has acted, wait for their turn."""

import json
import os
import sys
import tempfile
from time import perf_counter
from typing import Any

from cuttlefish.config.schema import Config
from cuttlefish.engine.run import resolve_run
from cuttlefish.engine.session import Session
from cuttlefish.loggers.base import Logger
from cuttlefish.lowrank.count import count_parameters
from scripts.benches.little_run import little_config
from scripts.benches.turns import finish

ONCE = ("start", "enter", "method", "ranks", "switch", "profile", "scoring", "masks")
"""Timed sections that contain a method's work outside its steps."""


class Gate(Logger):
    """Callback that lets `after` epochs pass, then `steps` steps per turn, and reports their seconds."""

    def __init__(self, session: Session, after: int, steps: int, told: Any):
        self.session, self.after, self.steps, self.told = session, after, steps, told
        self.trained, self.passed, self.open, self.name = 0, 0, False, ""

    def phase(self, name: str, epochs: int) -> None:
        self.name = name

    def epoch(self, row: dict[str, Any]) -> None:
        self.trained = row["epoch"]

    def epoch_begin(self, steps: int, label: str) -> None:
        if self.open:  # one epoch must have enough steps for all rounds
            os._exit(3)
        self.open = self.trained >= self.after

    def step(self) -> None:
        if not self.open:
            return
        self.passed += 1
        if self.passed == 1:  # the first step of a changed network allocates: do not time it
            self._tell(self._facts())
        elif (self.passed - 1) % self.steps == 0:
            finish(self.session.device.type)
            self._tell(perf_counter() - self.began)
        else:
            return
        if not sys.stdin.readline():
            os._exit(0)
        self.began = perf_counter()

    def _facts(self) -> dict[str, Any]:
        self.session.timer.collect()
        parts = self.session.timer.by_section()
        once = sum(parts.get(part, 0.0) for part in ONCE)
        nonzero = count_parameters(self.session.context.model).nonzero
        return {"phase": self.name, "once_s": once, "params_nonzero": nonzero}

    def _tell(self, what: Any) -> None:
        finish(self.session.device.type)
        print(json.dumps(what), file=self.told, flush=True)


def config_of(arm: dict[str, Any], folder: str) -> Config:
    """Return a config with two more epochs after those before the timed phase, with steps for all rounds."""
    return little_config(
        folder,
        model=arm["model"],
        width=arm["width"],
        images=arm["batch"] * (arm["steps"] * arm["rounds"] + 2),
        recipe={
            "epochs": arm["after"] + 2,
            "batch_size": arm["batch"],
            "schedule": {"warmup_epochs": 0, "peak_lr": 0.01, "base_lr": 0.01},
        },
        trainer={"device": arm["device"], "checkpoint_epochs": 1000},
        method=arm["method"],
    )


def main() -> None:
    arm = json.loads(sys.argv[1])
    told, sys.stdout = sys.stdout, sys.stderr  # only facts and seconds go to the bench
    with tempfile.TemporaryDirectory() as folder:
        session = Session(resolve_run(config_of(arm, folder)))
        session.loggers.append(Gate(session, arm["after"], arm["steps"], told))
        session.train()


if __name__ == "__main__":
    main()
