"""A resolved run, and the checks of its folder before it starts."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cuttlefish.config.identity import run_folder, run_key
from cuttlefish.config.resolved import RESOLVED, dump, load
from cuttlefish.config.schema import Config
from cuttlefish.config.validate import to_dict
from cuttlefish.engine.device import choose_device
from cuttlefish.errors import CuttlefishError
from cuttlefish.methods import build_method
from cuttlefish.methods.base import Method
from cuttlefish.models.checkpoints import own_files_digest
from cuttlefish.process.lock import RunLock
from cuttlefish.record.atomic import write_atomic
from cuttlefish.record.fields import Record
from cuttlefish.record.folder import RECORD, check_folder
from cuttlefish.record.provenance import provenance
from cuttlefish.record.record import OtherSchema, error_text, new_record, read_record, write_record
from cuttlefish.tasks.files import data_digest
from cuttlefish.tasks.registry import check_name

logger = logging.getLogger("cuttlefish")


@dataclass(frozen=True)
class Run:
    """One run, resolved.

    Attributes:
        config: The resolved config; its method section has every knob that is not null.
        method: The method built from these knobs, not yet prepared.
        key: The run key.
        folder: The run folder.
        digest: Digest of the data's content.
    """

    config: Config
    method: Method
    key: str
    folder: Path
    digest: str

    def identity(self) -> dict[str, Any]:
        """Return the fields that distinguish its checkpoints from another run's."""
        return {"run_key": self.key, "data_digest": self.digest, "seed": self.config.seed}

    def facts(self) -> dict[str, Any]:
        """Return the record's fields that are known before the model is built."""
        config = self.config
        return {
            "run_key": self.key,
            "model": config.model.name,
            "data": config.data.name,
            "method": config.method["name"],
            "recipe": config.recipe.name,
            "preset": config.method.get("preset"),
            "seed": config.seed,
            "epochs": config.recipe.epochs,
            "scale": config.scale,
            "experiment_name": config.experiment_name,
            "config": to_dict(config),
            "precision": config.trainer.precision,
            "data_digest": self.digest,
        }


def resolve_run(config: Config) -> Run:
    """Build the method and determine the run key and folder.

    The data's digest is part of the key, so the data must be present.
    """
    method = build_method(config.method)
    knobs = {"name": config.method["name"], "preset": config.method.get("preset"), **to_dict(method.settings)}
    config = replace(config, method={key: value for key, value in knobs.items() if value is not None})
    check_name(config.data)
    digest = data_digest(config.data)
    mapping, files = to_dict(config), own_files_digest(config.model)
    if files is not None:
        mapping["model"] |= {"files": files}
    key = run_key(mapping, digest, method.version, to_dict(method.Settings()))
    folder = run_folder(config, key)
    check_folder(folder)
    return Run(config, method, key, folder, digest)


def finished_record(run: Run) -> Record | None:
    """Return the run's record if it finished, else None: a failed or interrupted run may go on.

    Raises:
        CuttlefishError: The folder's record belongs to another version of the suite or to another run.
    """
    if not (run.folder / RECORD).exists():
        return None
    try:
        record = read_record(run.folder)
    except OtherSchema as error:
        raise CuttlefishError(f"{error}: choose another run_dir or remove it") from None
    except CuttlefishError as error:
        logger.warning("%s It will be written again.", error)
        return None
    if record.run_key != run.key:
        raise CuttlefishError(
            f"{run.folder} holds the record of run {record.run_key}, and this is run {run.key}: "
            "choose another run_dir"
        )
    return record if record.status == "finished" else None


def check_same_run(run: Run) -> None:
    """Raise CuttlefishError if the folder holds a run of another config or on other data."""
    path = run.folder / RESOLVED
    if not path.exists():
        return
    there = load(path)
    digest = there.get("data_digest", run.digest)
    if digest != run.digest:
        raise CuttlefishError(
            f"{run.folder} was begun on other data (digest {digest[:12]}, now {run.digest[:12]}): "
            "put the data files back, or choose another run_dir"
        )
    if there.get("run_key") != run.key:
        raise CuttlefishError(
            f"{run.folder} holds run {there.get('run_key')}, and this is run {run.key}: "
            "choose another run_dir or remove it"
        )


def write_resolved(run: Run) -> bool:
    """Write resolved.yaml, which is all that a machine without Hydra needs.

    A file with the same content is not rewritten: a launcher calls this before its workers have the lock,
    while another process may be training the run.

    Returns:
        Whether the file is new.
    """
    path = run.folder / RESOLVED
    content = dump({"run_key": run.key, "data_digest": run.digest, **to_dict(run.config)})
    try:
        is_new = not path.exists()
        if is_new or path.read_bytes() != content.encode():
            write_atomic(path, content)
    except OSError as error:
        raise CuttlefishError(f"cannot write to the run folder {run.folder}: {error.strerror}") from error
    return is_new


def record_failure(run: Run, error: BaseException, processes: int) -> None:
    """Write the record of a run that failed outside its session.

    Keep an existing record, and do not touch the folder of a run that another process is training.
    """
    if (run.folder / RECORD).exists():
        return
    facts = run.facts() | provenance(str(choose_device(run.config.trainer)))
    facts |= {"error": error_text(error), "world_size": processes}
    try:
        with RunLock(run.folder, float) as lock:
            if not (run.folder / RECORD).exists():
                record = new_record("failed", wall_seconds=lock.lost_seconds or None, **facts)
                write_record(run.folder, record)
    except (CuttlefishError, OSError) as also:
        logger.warning("no record is written of what ended this: %s", also)
