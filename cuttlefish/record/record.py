"""`record.json`: what one run did and where it came from, as a plain dictionary with a checked list of fields.

Tables, figures and claims are made from records alone. Every started run leaves one: a failed or interrupted run's has
its status, the error, and whatever is known.
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
from cuttlefish.record.atomic import write_atomic
from cuttlefish.record.fields import FIELDS, SCHEMA, problems_of
from cuttlefish.record.folder import RECORD
from cuttlefish.record.redact import redact_config, redact_log, redact_text

log = logging.getLogger(__name__)


def _clean_extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Redact why loggers were dropped, in an exception's own words; earlier records have it as `sinks_dropped`."""
    dropped = {name: extra[name] for name in ("loggers_dropped", "sinks_dropped") if extra.get(name)}
    return {**extra, **{name: [redact_log(told) for told in reasons] for name, reasons in dropped.items()}}


CLEANERS = {
    "config": redact_config,
    "target": redact_config,
    "command": redact_text,
    "error": redact_log,
    "extra": _clean_extra,
}


def new_record(status: str, **fields: Any) -> dict[str, Any]:
    """A record with every field of FIELDS, in that order, JSON-safe and free of secrets; what is not given is None.

    Names that FIELDS does not know (a method's own results) go into `extra`.
    """
    values = {**fields, "schema": SCHEMA, "status": status}
    own = {name: value for name, value in values.items() if name not in FIELDS}
    values["extra"] = {**(fields.get("extra") or {}), **own} or None
    values = clean_record(values)
    return {name: plain(values.get(name)) for name in FIELDS}


def clean_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without secrets and without folders of the machine; a clean one is left as it is."""
    return {
        **record,
        **{name: clean(record[name]) if record.get(name) else None for name, clean in CLEANERS.items()},
    }


def validate_record(record: Mapping[str, Any]) -> list[str]:
    """What is wrong with it, one sentence a problem; empty if nothing is."""
    return problems_of(record)


def write_record(folder: str | Path, record: Mapping[str, Any]) -> Path:
    """Write `record.json` atomically. A record with problems is written too (the run is over; its result is not thrown
    away) but each problem is logged."""
    for problem in validate_record(record):
        log.warning("record.json of %s: %s", folder, problem)
    path = Path(folder) / RECORD
    write_atomic(path, json.dumps(plain(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_record(path: str | Path) -> dict[str, Any]:
    """The record at `path`, a run folder or the file itself."""
    path = Path(path) / RECORD if Path(path).is_dir() else Path(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CuttlefishError(f"There is no record at {path}; a run writes it when it ends.") from None
    except ValueError as error:
        raise CuttlefishError(f"{path} is not a record: not valid JSON ({error}).") from None
    if not isinstance(record, dict):
        raise CuttlefishError(
            f"{path} is not a record: it holds a {type(record).__name__}, not a mapping of fields."
        )
    return record


def value_of(record: Mapping[str, Any], path: str) -> Any:
    """`record["config"]["method"]["k"]` for `config.method.k`; None where there is no such thing."""
    if "." not in path:
        return record.get(path)
    value: Any = record
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def error_text(error: BaseException) -> str:
    """The traceback, with paths relative to the installation, other folders shortened, and without secrets."""
    text = "".join(traceback.format_exception(error))
    folders = {str(Path(__file__).resolve().parents[2]), str(Path.home()), *filter(None, map(str, sys.path))}
    for folder in sorted(folders - {"/", "."}, key=len, reverse=True):
        text = text.replace(f'"{folder}/', '"')
    return redact_log(text)


def plain(value: Any) -> Any:
    """The value in JSON's own types: arrays and tensors as lists or numbers, paths as text, NaN and infinities as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if hasattr(value, "tolist"):  # numpy's and torch's scalars and arrays
        return plain(value.tolist())
    if isinstance(value, float):
        return value if isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
