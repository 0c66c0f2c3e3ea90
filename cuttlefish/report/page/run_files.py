"""Read the files beside a record for its page; none of them can prevent the page from being written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuttlefish.errors import CuttlefishError
from cuttlefish.record.atomic import read_regular
from cuttlefish.record.folder import LOG, checked_ranks, read_epochs, read_profile
from cuttlefish.record.redact import redact_text

LOG_LINES = 60


@dataclass(frozen=True)
class Files:
    """Contents of the files beside a record. problems: a sentence for each unreadable file."""

    epochs: list[dict[str, Any]]
    ranks: list[dict[str, Any]]
    profile: dict[str, Any] | None
    log: str
    problems: list[str]


def read_files(folder: Path) -> Files:
    ranks, damage = checked_ranks(folder)
    found, problems = {"ranks": ranks}, [f"ranks: {damage}"] if damage else []
    for name, read, empty in (
        ("epochs", read_epochs, []),
        ("profile", read_profile, None),
        ("log", log_tail, ""),
    ):
        try:
            found[name] = read(folder)
        except (CuttlefishError, OSError, ValueError) as error:
            found[name] = empty
            problems.append(
                f"{name}: the file beside the record cannot be read ({type(error).__name__}: {error})"
            )
    return Files(**found, problems=problems)


def log_tail(folder: Path) -> str:
    path = folder / LOG
    lines = read_regular(path).decode(errors="replace").splitlines() if path.exists() else []
    return redact_text("\n".join(lines[-LOG_LINES:]))
