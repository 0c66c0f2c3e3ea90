"""Make, write and read `record.json`, the result and provenance of one run.

Tables, figures and claims are made from records alone. Every started run writes one; that of a failed or
interrupted run has its status, the error and all known fields.
"""

import json
import logging
import sys
import traceback
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from cuttlefish.errors import CuttlefishError
from cuttlefish.record.atomic import read_regular, write_atomic
from cuttlefish.record.fields import FIELDS, SCHEMA, Record
from cuttlefish.record.folder import RECORD
from cuttlefish.record.problems import problems_of, type_problems
from cuttlefish.record.redact import redact_config, redact_log, redact_text

log = logging.getLogger(__name__)


class OtherSchema(CuttlefishError):
    """The record is from another version of this suite, or is something else."""


def _clean_extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Redact the exception texts of dropped loggers (`sinks_dropped` in earlier records)."""
    dropped = {name: extra[name] for name in ("loggers_dropped", "sinks_dropped") if extra.get(name)}
    return {**extra, **{name: [redact_log(told) for told in reasons] for name, reasons in dropped.items()}}


CLEANERS = dict.fromkeys(("config", "target"), redact_config)
CLEANERS |= {"command": redact_text, "error": redact_log, "extra": _clean_extra}


def new_record(status: str, **values: Any) -> Record:
    """Make a record from values, JSON-safe and free of secrets; missing fields are None.

    Values that are not fields (a method's own results) go into `extra`.
    """
    own = {name: value for name, value in values.items() if name not in FIELDS}
    known = {name: value for name, value in values.items() if name in FIELDS}
    known |= {"schema": SCHEMA, "status": status, "extra": {**(values.get("extra") or {}), **own} or None}
    return Record(**{name: plain(value) for name, value in _clean(known).items()})


def clean_record(record: Record) -> Record:
    """Copy a record without secrets and folders of the machine. Idempotent."""
    return Record(**_clean(vars(record)))


def _clean(values: Mapping[str, Any]) -> dict[str, Any]:
    cleaned = {name: clean(values[name]) if values.get(name) else None for name, clean in CLEANERS.items()}
    return {**values, **cleaned}


def validate_record(record: Record) -> list[str]:
    """Return the problems of a record, one sentence each."""
    return problems_of(vars(record))


def write_record(folder: str | Path, record: Record) -> Path:
    """Write `record.json` atomically.

    A record with problems is written too, so that no result is lost, and each problem is logged.
    """
    for problem in validate_record(record):
        log.warning("record.json of %s: %s", folder, problem)
    path = Path(folder) / RECORD
    write_atomic(path, json.dumps(plain(vars(record)), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_record(path: str | Path) -> Record:
    """Read the record at `path`, a run folder or the file.

    Field types are checked; `validate_record` checks that the fields are consistent.

    Raises:
        OtherSchema: It is from another version.
        CuttlefishError: It is missing or damaged.
    """
    values = read_fields(path)
    if values.get("schema") != SCHEMA:
        raise OtherSchema(
            f"{_file_of(path)} is of another version of this suite "
            f"(schema {values.get('schema')}, not {SCHEMA})"
        )
    if problems := type_problems(values):
        raise CuttlefishError(f"{_file_of(path)} is not a record: {problems[0]}.")
    return Record(**values)


def read_fields(path: str | Path) -> dict[str, Any]:
    """Read the mapping in a record's file, unchecked: it may be another version's, or no record."""
    path = _file_of(path)
    try:
        values = json.loads(read_regular(path))
    except FileNotFoundError:
        raise CuttlefishError(f"There is no record at {path}; a run writes it when it ends.") from None
    except OSError as error:
        raise CuttlefishError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise CuttlefishError(f"{path} is not a record: not valid JSON ({error}).") from None
    if not isinstance(values, dict):
        raise CuttlefishError(
            f"{path} is not a record: it holds a {type(values).__name__}, not a mapping of fields."
        )
    return values


def _file_of(path: str | Path) -> Path:
    return Path(path) / RECORD if Path(path).is_dir() else Path(path)


def value_of(record: Record | Mapping[str, Any], path: str) -> Any:
    """Return `record.config["method"]["k"]` for path `config.method.k`; None if absent."""
    value: Any = vars(record) if isinstance(record, Record) else record
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def error_text(error: BaseException) -> str:
    """Format the traceback with paths relative to the installation or shortened, without secrets."""
    text = "".join(traceback.format_exception(error))
    folders = {str(Path(__file__).resolve().parents[2]), str(Path.home()), *filter(None, map(str, sys.path))}
    for folder in sorted(folders - {"/", "."}, key=len, reverse=True):
        text = text.replace(f'"{folder}/', '"')
    return redact_log(text)


def plain(value: Any) -> Any:
    """Convert to JSON types: arrays and tensors to lists or numbers, paths to text, NaN and inf to None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if hasattr(value, "tolist"):  # scalars and arrays of numpy and torch
        return plain(value.tolist())
    if isinstance(value, float):
        return value if isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
