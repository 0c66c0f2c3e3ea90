"""The files beside a record, as a page needs them: none of them can keep the page from being written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuttlefish.record.folder import LOG, checked_ranks, read_epochs, read_profile
from cuttlefish.record.redact import redact_text

LOG_LINES = 60


@dataclass(frozen=True)
class Files:
    """What lies beside the record. problems: a sentence for each file that could not be read."""

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
        ("profile", profile_of, None),
        ("log", log_tail, ""),
    ):
        try:
            found[name] = read(folder)
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            found[name] = empty
            problems.append(
                f"{name}: the file beside the record cannot be read ({type(error).__name__}: {error})"
            )
    return Files(**found, problems=problems)


def profile_of(folder: Path) -> dict[str, Any] | None:
    profile = read_profile(folder)
    if profile is not None and not isinstance(profile, dict):
        raise ValueError("it holds no mapping")
    return profile


def log_tail(folder: Path) -> str:
    path = folder / LOG
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return redact_text("\n".join(lines[-LOG_LINES:]))
