"""Run one resolved config: skip if finished, resume if begun, train, record. Needs no Hydra or W&B.

    python -m cuttlefish.worker resolved.yaml

Under torchrun or our own launcher it is one of several processes. Exit codes: see `cuttlefish/errors.py`.
"""

import gc
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, NoReturn

from cuttlefish.config.resolved import RESOLVED, load
from cuttlefish.config.schema import Config
from cuttlefish.config.validate import load_config
from cuttlefish.engine.device import check_devices
from cuttlefish.engine.failures import explain_torch_errors
from cuttlefish.engine.processes.world import (
    World,
    joined_world,
    report_error,
    under_launcher,
    write_error_file,
)
from cuttlefish.engine.run import (
    Run,
    check_same_run,
    finished_record,
    record_failure,
    resolve_run,
    write_resolved,
)
from cuttlefish.engine.session import Session
from cuttlefish.errors import EXIT_BAD_INPUT, Busy, CuttlefishError, exit_code
from cuttlefish.process.lock import RunLock
from cuttlefish.process.signals import State, StopSignals
from cuttlefish.record.fields import Record
from cuttlefish.record.folder import read_profile, read_ranks
from cuttlefish.record.record import read_record

Ending = tuple[Literal["finished", "skipped"], Record]
"""Whether the run was trained now or already finished before, and its record."""


def run_config(config: Config) -> Record:
    """Train `config` unless its record is finished, and return the record."""
    return run_or_skip(config)[1]


def run_or_skip(config: Config, stop: StopSignals | None = None) -> Ending:
    """Train `config` unless its record is finished.

    Args:
        stop: Receives requests to stop; keeps one that came too late for this run.

    Raises:
        Busy: Another process is training this run.
        Interrupted: A stop was requested, and the state is saved.
    """
    stop = stop or StopSignals()
    stop.enter(State.UNSAVED if under_launcher() else State.UNTRAINED)
    with stop:
        return _run_or_skip(resolve_run(config), stop)


def record_lost(config: Config, error: CuttlefishError) -> NoReturn:
    """Write the failed record of a run whose process was killed before it could, and raise `error`."""
    record_failure(resolve_run(config), error, config.trainer.devices)
    raise error


def _run_or_skip(run: Run, stop: StopSignals) -> Ending:
    if under_launcher():
        with joined_world(run.config.trainer) as world:
            return _train(run, world, stop)
    check_same_run(run)
    finished = finished_record(run)
    if finished is not None:
        print(f"already finished, not run again ({run.folder}):\n{_summary(run.folder, finished)}")
        return "skipped", finished
    return _train(run, World(), stop) if run.config.trainer.devices == 1 else _launch(run)


def _train(run: Run, world: World, stop: StopSignals) -> Ending:
    session = _build(run, world)
    gc.enable()  # which run.py has switched off for the imports
    lock = RunLock(run.folder, lambda: session.timer.wall_seconds) if world.is_first else nullcontext()
    with lock:
        # Another process may have finished this run before we got the lock. Only the first process checks:
        # the others may be on machines without access to the folder.
        finished = world.broadcast_object(finished_record(run) if world.is_first else None)
        if finished is not None:
            return "skipped", finished
        if world.is_first:
            check_same_run(run)
            write_resolved(run)
            stop.owned = lock.owned
        return "finished", session.train(lock.lost_seconds if world.is_first else 0.0, stop)


def _build(run: Run, world: World) -> Session:
    """Build the session. Bad input is only reported; any other error writes the record of a failed run."""
    try:
        return Session(run, world)
    except CuttlefishError:
        raise
    except Exception as error:
        if world.is_first:
            record_failure(run, error, world.processes)
        with explain_torch_errors(run.config.recipe, run.config.trainer):
            raise


def _launch(run: Run) -> Ending:
    from cuttlefish.engine.processes.launch import launch  # torch's launcher takes a second to import

    check_devices(run.config.trainer)
    is_new = write_resolved(run)
    try:
        launch(run.folder / RESOLVED, run.config.trainer)
    except Busy:  # another process trains it
        raise
    except CuttlefishError as error:
        if [path.name for path in run.folder.iterdir()] != [
            RESOLVED
        ]:  # the first process may have been killed
            record_failure(run, error, run.config.trainer.devices)
        elif is_new:  # rejected before it began: leave no files
            (run.folder / RESOLVED).unlink()
            run.folder.rmdir()
        raise
    return "finished", read_record(run.folder)


def _summary(folder: Path, record: Record) -> str:
    try:
        from cuttlefish.display.summary import as_text, run_summary
    except ImportError:  # rich is not installed
        return f"{record.headline} {record.score}, {record.params_total} parameters"
    return as_text(run_summary(record, read_profile(folder), read_ranks(folder)))


def read_resolved(path: Path) -> Config:
    """Read the config from a resolved.yaml. Raises CuttlefishError if it is missing or invalid."""
    mapping = load(path)
    return load_config(
        {key: value for key, value in mapping.items() if key not in ("run_key", "data_digest")}
    )


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m cuttlefish.worker resolved.yaml", file=sys.stderr)
        return EXIT_BAD_INPUT
    try:
        run_config(read_resolved(Path(arguments[0])))
    except (CuttlefishError, KeyboardInterrupt) as error:
        report_error(error)
        return exit_code(error)
    except Exception as error:
        write_error_file(error)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
