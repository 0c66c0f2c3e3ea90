"""Runs one resolved config: skip if finished, resume if begun, train, record. Needs neither Hydra nor W&B.

    python -m cuttlefish.worker resolved.yaml

One of several processes where torchrun or our own launcher started it as such. Exit codes: see `cuttlefish/errors.py`.
"""

import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cuttlefish.config.identity import run_folder, run_key
from cuttlefish.config.resolved import RESOLVED, dump, load
from cuttlefish.config.schema import Config
from cuttlefish.config.validate import load_config, to_dict
from cuttlefish.engine.device import choose_device
from cuttlefish.engine.distributed import World, hand_up, joined_world, tell, under_launcher
from cuttlefish.engine.refusals import told_if_refused
from cuttlefish.engine.session import Session, config_facts
from cuttlefish.errors import EXIT_BAD_INPUT, Busy, CuttlefishError, exit_code
from cuttlefish.methods import build_method, load_method
from cuttlefish.process.lock import RunLock
from cuttlefish.process.signals import UNTRAINED, StopSignals
from cuttlefish.record.atomic import write_atomic
from cuttlefish.record.fields import SCHEMA
from cuttlefish.record.folder import RECORD, read_profile, read_ranks
from cuttlefish.record.provenance import provenance
from cuttlefish.record.record import error_text, new_record, read_record, write_record

logger = logging.getLogger("cuttlefish")


@dataclass(frozen=True)
class Run:
    """A config with its identity."""

    config: Config
    key: str
    folder: Path
    digest: str
    """Of the data's content."""


def run_config(config: Config) -> dict[str, Any]:
    """Train `config` unless its record says it is finished; the record. Raises CuttlefishError on bad input."""
    return attend(config)[1]


def attend(
    config: Config, stop: StopSignals | None = None
) -> tuple[Literal["finished", "skipped"], dict[str, Any]]:
    """As `run_config`, and whether it was trained now or had been before.

    stop: hears the requests to stop; one that came too late for this run is left in it.
    Raises Busy if another process is at it, and Interrupted when asked to stop, with the state saved.
    """
    stop = stop or StopSignals()
    stop.at_once = (
        "" if under_launcher() else UNTRAINED
    )  # of several processes none may leave by itself: they agree on it between two steps
    with stop:
        return _attend(identify(config), stop)


def _attend(run: Run, stop: StopSignals) -> tuple[Literal["finished", "skipped"], dict[str, Any]]:
    if under_launcher():
        with joined_world(run.config.trainer) as world:
            return _train(run, world, stop)
    _same_run(run)
    finished = finished_record(run)
    if finished is not None:
        print(f"already finished, not run again ({run.folder}):\n{_summary(run.folder, finished)}")
        return "skipped", finished
    return _train(run, World(), stop) if run.config.trainer.devices == 1 else _launch(run)


def _train(
    run: Run, world: World, stop: StopSignals
) -> tuple[Literal["finished", "skipped"], dict[str, Any]]:
    session = _build(run, world)
    lock = RunLock(run.folder, lambda: session.clock.wall_seconds) if world.is_first else nullcontext()
    with lock:
        # Another process may have come to its end with this run before we had the lock. Only the first looks: the others may
        # be on machines that do not see the folder.
        finished = world.agree(finished_record(run) if world.is_first else None)
        if finished is not None:
            return "skipped", finished
        if world.is_first:
            _same_run(run)
            _claim(run)
            stop.owned = lock.owned
        return "finished", session.run(lock.lost_seconds if world.is_first else 0.0, stop)


def _build(run: Run, world: World) -> Session:
    """Bad input is only told. What else goes wrong before training is a failed run, with a record that says so."""
    try:
        return Session(run.config, run.key, run.folder, world)
    except CuttlefishError:
        raise
    except Exception as error:
        if world.is_first:
            record_failure(run, error, world.processes)
        with told_if_refused(run.config):
            raise


def record_failure(run: Run, error: BaseException, processes: int) -> None:
    """For a run that ended where its session could not write a record of its own; an earlier piece's record stays, and so does
    the folder of a run that another process is at."""
    if (run.folder / RECORD).exists():
        return
    facts = config_facts(run.config, run.key) | provenance(str(choose_device(run.config.trainer)))
    facts |= {"error": error_text(error), "data_digest": run.digest, "world_size": processes}
    try:
        with RunLock(run.folder, float) as lock:
            if not (run.folder / RECORD).exists():
                write_record(
                    run.folder, new_record("failed", wall_seconds=lock.lost_seconds or None, **facts)
                )
    except (CuttlefishError, OSError) as also:
        logger.warning("no record is written of what ended this: %s", also)


def _summary(folder: Path, record: dict[str, Any]) -> str:
    try:
        from cuttlefish.display.summary import as_text, run_summary
    except ImportError:  # a machine with torch only, without rich
        return f"accuracy {record['accuracy_final']} %, {record['params_total']} parameters"
    return as_text(run_summary(record, read_profile(folder), read_ranks(folder)))


def _launch(run: Run) -> tuple[Literal["finished"], dict[str, Any]]:
    from cuttlefish.engine.launch import launch  # torch's launcher takes a second to import

    made = _claim(run)
    try:
        launch(run.folder / RESOLVED, run.config.trainer)
    except Busy:  # it is another's
        raise
    except CuttlefishError as error:
        if [path.name for path in run.folder.iterdir()] != [
            RESOLVED
        ]:  # the first process may have been killed
            record_failure(run, error, run.config.trainer.devices)
        elif made:  # refused before anything began: nothing stays behind
            (run.folder / RESOLVED).unlink()
            run.folder.rmdir()
        raise
    return "finished", read_record(run.folder)


def identify(config: Config) -> Run:
    """The run key and folder of a resolved config; the data's digest is part of the key, so the data must be there."""
    from cuttlefish.data.files import data_digest

    settings = build_method(config.method).settings
    method = {"name": config.method["name"], "preset": config.method.get("preset"), **to_dict(settings)}
    config = replace(config, method={key: value for key, value in method.items() if value is not None})
    cls = load_method(config.method["name"])
    digest = data_digest(config.data)
    key = run_key(to_dict(config), digest, cls.version, to_dict(cls.Settings()))
    return Run(config, key, run_folder(config, key), digest)


def finished_record(run: Run) -> dict[str, Any] | None:
    """The record of a run that went through, or None: an interrupted, failed or unreadable one does not keep it from going on.

    Raises CuttlefishError if the folder's record is of another version of the suite or of another run.
    """
    if not (run.folder / RECORD).exists():
        return None
    try:
        record = read_record(run.folder)
    except CuttlefishError as error:
        logger.warning("%s It will be written again.", error)
        return None
    if record.get("schema") != SCHEMA:
        raise CuttlefishError(
            f"{run.folder / RECORD} is of another version of this suite (schema {record.get('schema')}, not {SCHEMA}): choose another run_dir or "
            "remove it"
        )
    if record.get("run_key") != run.key:
        raise CuttlefishError(
            f"{run.folder} holds the record of run {record.get('run_key')}, and this is run {run.key}: choose another run_dir"
        )
    return record if record.get("status") == "finished" else None


def _same_run(run: Run) -> None:
    """Raise CuttlefishError if the folder holds another config's run, or this one's on other data."""
    path = run.folder / RESOLVED
    if not path.exists():
        return
    there = load(path)
    digest = there.get("data_digest", run.digest)
    if digest != run.digest:
        raise CuttlefishError(
            f"{run.folder} was begun on other data (digest {digest[:12]}, now {run.digest[:12]}): put the data files back, or choose another run_dir"
        )
    if there.get("run_key") != run.key:
        raise CuttlefishError(
            f"{run.folder} holds run {there.get('run_key')}, and this is run {run.key}: choose another run_dir or remove it"
        )


def _claim(run: Run) -> bool:
    """Write resolved.yaml, all that a machine without Hydra needs; whether it was not there before.

    One that says the same is left alone: a launcher claims before any of its workers has the lock, and another's may be at it.
    """
    path, content = (
        run.folder / RESOLVED,
        dump({"run_key": run.key, "data_digest": run.digest, **to_dict(run.config)}),
    )
    try:
        is_new = not path.exists()
        if is_new or path.read_bytes() != content.encode():
            write_atomic(path, content)
    except OSError as error:
        raise CuttlefishError(f"cannot write to the run folder {run.folder}: {error.strerror}") from error
    return is_new


def read_resolved(path: Path) -> Config:
    """The config of a resolved.yaml. Raises CuttlefishError if it is missing or not one."""
    return load_config(
        {key: value for key, value in load(path).items() if key not in ("run_key", "data_digest")}
    )


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m cuttlefish.worker resolved.yaml", file=sys.stderr)
        return EXIT_BAD_INPUT
    try:
        run_config(read_resolved(Path(arguments[0])))
    except (CuttlefishError, KeyboardInterrupt) as error:
        tell(error)
        return exit_code(error)
    except Exception as error:
        hand_up(error)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
