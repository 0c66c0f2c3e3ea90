"""The files of a run folder: names, reading, and truncation to a checkpoint.

Readers skip bad rows: a last line torn by a crash is ignored, and a damaged row is left out.
"""

import csv
import io
import json
import logging
import os
import re
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from cuttlefish.errors import CuttlefishError
from cuttlefish.record.atomic import read_regular, write_atomic

RECORD = "record.json"
EPOCHS = "epochs.jsonl"
RANKS = "ranks.csv"
PROFILE = "profile.json"
WEIGHTS = "model.safetensors"
LOG = "log.txt"
LOCK = "run.lock"
PLOTS = "plots"
RANK_COLUMNS = ("epoch", "layer", "stable_rank", "scaled_rank", "full_rank", "step")
"""`epoch` is a decimal within one. `step`, the optimizer steps so far, is missing in earlier files."""
RANK_HEADERS = {",".join(RANK_COLUMNS), ",".join(RANK_COLUMNS[:-1])}
PLAUSIBLE = 1e-9, 1e9
"""Range of usable ranks: others come from zero or diverged weights or a damaged file."""
LONGEST = 10_000
"""Maximum characters in a row of ranks; layer names have about a hundred."""

log = logging.getLogger(__name__)


def check_folder(folder: Path) -> None:
    """Raise CuttlefishError if the folder cannot be made because of a file or a loop of links in its path."""
    for place in (folder, *folder.absolute().parents):
        if place.is_dir():
            return
        if os.path.lexists(place):
            raise CuttlefishError(
                f"cannot write to the run folder {folder}: {place} is no folder; choose another one"
            )


def check_origin(source: Path) -> None:
    """Raise CuttlefishError if there is nothing at `source` to fork from."""
    if not os.path.lexists(source):
        raise CuttlefishError(
            f"fork_from={source}: there is no checkpoint, neither a file nor a run folder with one"
        )


def read_epochs(folder: str | Path) -> list[dict[str, Any]]:
    """Read the rows of `epochs.jsonl`, one per trained epoch; empty without the file."""
    path = Path(folder) / EPOCHS
    try:
        rows = list(map(_epoch_row, _whole_lines(path)))
    except OSError as error:
        log.warning("%s cannot be read (%s)", path, type(error).__name__)
        return []
    return [row for row in rows if row is not None]


def read_ranks(folder: str | Path) -> list[dict[str, Any]]:
    """Read the rows of `ranks.csv`; empty without the file. Invalid rows are skipped with a warning."""
    rows, problem = checked_ranks(folder)
    if problem:
        log.warning("%s: %s", Path(folder) / RANKS, problem)
    return rows


def checked_ranks(folder: str | Path) -> tuple[list[dict[str, Any]], str]:
    """Read the rows of `ranks.csv`, and return a message about skipped rows with them."""
    try:
        lines = _whole_lines(Path(folder) / RANKS)
    except OSError as error:
        return [], f"the file cannot be read ({type(error).__name__})"
    rows = [_rank_row(line) for line in lines if line not in RANK_HEADERS]
    sound = [row for row in rows if row is not None]
    bad = len(rows) - len(sound)
    return sound, f"{bad} of {len(rows)} lines are no ranks and are left out" if bad else ""


def read_profile(folder: str | Path) -> dict[str, Any] | None:
    """Read `profile.json`; None if there is none. Raises CuttlefishError for a damaged file."""
    path = Path(folder) / PROFILE
    if not path.exists():
        return None
    try:
        profile = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError) as error:
        raise CuttlefishError(f"{path} cannot be read ({type(error).__name__}: {error})") from None
    if not isinstance(profile, dict):
        raise CuttlefishError(f"{path} is no profile: it holds a {type(profile).__name__}, not a mapping")
    return profile


def csv_line(values: list[Any]) -> str:
    """Format one row of a CSV file, quoted as needed, without a line end."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(values)
    return buffer.getvalue()


def cut_back(
    folder: str | Path, epochs: int, first: int | None = None, within: float = 0.0, measured: int = 0
) -> list[str]:
    """Remove the rows after a checkpoint of `epochs` trained epochs.

    `epochs.jsonl` counts trained epochs from 1, so rows up to `epochs` are kept. A row of `ranks.csv` belongs
    to the weights after its epoch, so the ranks of the checkpoint's weights are kept too. Damaged rows and
    all but the last of duplicate rows are removed.

    Args:
        first: First epoch whose rows must be present; None: that of the first row.
        within: How much of the next epoch the checkpoint has trained, as a fraction.
        measured: How many times the checkpoint has measured the ranks.

    Returns:
        Problems of the files, one sentence each.
    """
    folder = Path(folder)
    found, told = _cut(folder / EPOCHS, _epoch_of_json, epochs)
    there = {epoch for epoch, _ in found}
    owed = range(first or min(there, default=epochs + 1), epochs + 1)
    lost = ", ".join(str(epoch) for epoch in owed if epoch not in there)
    if lost:
        told.append(f"{EPOCHS} has lost the rows of epochs that the checkpoint has trained: {lost}")
    ranks, problems = _cut(folder / RANKS, _layer_of_csv, epochs + within)
    times = len({epoch for epoch, _ in ranks})
    if times < measured:
        problems.append(f"{RANKS} has lost rows: it has ranks of {times} times, the checkpoint of {measured}")
    return told + problems


def forget_ranks(folder: str | Path, epochs: set[float]) -> None:
    """Remove the rank rows of these epochs, before they are rewritten."""
    path = Path(folder) / RANKS
    _replace(path, [line for line in _whole_lines(path) if (_layer_of_csv(line) or (None,))[0] not in epochs])


Identity = tuple[float, Hashable]
"""Key of a row: its epoch, and what else identifies it in its file."""


def _cut(
    path: Path, identity_of: Callable[[str], Identity | None], last: float
) -> tuple[set[Identity], list[str]]:
    """Keep the rows up to epoch `last`, each once. Return their identities and the problems found."""
    kept: dict[Identity, str] = {}
    bad = doubled = 0
    head = []
    for line in _whole_lines(path):
        if line in RANK_HEADERS:
            head = [line]
        elif (identity := identity_of(line)) is None:
            bad += 1
        elif identity[0] <= last:
            doubled += identity in kept
            kept[identity] = line
    _replace(path, [*head, *kept.values()])
    told = {"damaged": bad, "doubled": doubled}
    return set(kept), [f"{path.name}: {n} {what} rows are left out" for what, n in told.items() if n]


def _replace(path: Path, lines: list[str]) -> None:
    content = "".join(f"{line}\n" for line in lines)
    if path.exists() and read_regular(path).decode(errors="replace") != content:
        write_atomic(path, content)


def _whole_lines(path: Path) -> list[str]:
    return read_regular(path).decode(errors="replace").split("\n")[:-1] if path.exists() else []


def _epoch_of_json(line: str) -> Identity | None:
    row = _epoch_row(line)
    return None if row is None else (row["epoch"], None)


def _epoch_row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and type(row.get("epoch")) is int else None


def _layer_of_csv(line: str) -> Identity | None:
    cells = _rank_cells(line)
    return None if cells is None else (_number(cells[0]), cells[1])


def _rank_cells(line: str) -> list[str] | None:
    """Split a valid row of ranks into its cells; None for the header or a damaged line."""
    if len(line) > LONGEST:
        return None
    try:
        cells = next(csv.reader([line]), []) if '"' in line else line.split(",")
    except csv.Error:  # a bare carriage return, as in binary data
        return None
    whole = len(RANK_COLUMNS) - 1 <= len(cells) <= len(RANK_COLUMNS)
    return cells if whole and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", cells[0]) else None


def _number(cell: str) -> float:
    """Return an epoch: whole, or within one."""
    return float(cell) if "." in cell else int(cell)


def _rank_row(line: str) -> dict[str, Any] | None:
    cells = _rank_cells(line)
    try:
        epoch, layer, stable, scaled, *counts = cells or ()
        stable, scaled = float(stable), float(scaled)
        row = dict(
            zip(RANK_COLUMNS, (_number(epoch), layer, stable, scaled, *map(int, counts)), strict=False)
        )
    except ValueError:
        return None
    low, high = PLAUSIBLE  # methods may choose rank 0 (LC), but a stable rank is positive
    return row if low < stable < high and 0 <= scaled < high and 0 < row["full_rank"] < high else None
