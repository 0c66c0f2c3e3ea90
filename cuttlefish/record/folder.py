"""The files of a run folder: their names, how to read them, and how to cut them back to a checkpoint.

Readers never fail on a torn last line (a crash while it was written): such a line does not count.
"""

import csv
import io
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cuttlefish.record.atomic import write_atomic

RECORD = "record.json"
EPOCHS = "epochs.jsonl"
RANKS = "ranks.csv"
PROFILE = "profile.json"
WEIGHTS = "model.safetensors"
LOG = "log.txt"
LOCK = "run.lock"
PLOTS = "plots"
RANK_COLUMNS = ("epoch", "layer", "stable_rank", "scaled_rank", "full_rank")
RANK_HEADER = ",".join(RANK_COLUMNS)
PLAUSIBLE = 1e-9, 1e9
"""Ranks outside cannot be divided by: of a weight of zeros, of one that diverged, of a damaged file."""

log = logging.getLogger(__name__)


def read_epochs(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of `epochs.jsonl`, one a trained epoch; empty without the file."""
    rows = map(_json_row, _whole_lines(Path(folder) / EPOCHS))
    return [row for row in rows if row is not None and row.get("epoch") is not None]


def read_ranks(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of `ranks.csv` with numbers as numbers; empty without the file. What is no row of ranks is left out with a warning."""
    rows, problem = checked_ranks(folder)
    if problem:
        log.warning("%s: %s", Path(folder) / RANKS, problem)
    return rows


def checked_ranks(folder: str | Path) -> tuple[list[dict[str, Any]], str]:
    """The rows of `ranks.csv` that are some, and in words what of the file is left out."""
    try:
        lines = _whole_lines(Path(folder) / RANKS)
    except OSError as error:
        return [], f"the file cannot be read ({type(error).__name__})"
    rows = [_rank_row(line) for line in lines if line != RANK_HEADER]
    sound = [row for row in rows if row is not None]
    return sound, f"{len(rows) - len(sound)} of {len(rows)} lines are no ranks and are left out" if len(
        sound
    ) < len(rows) else ""


def read_profile(folder: str | Path) -> dict[str, Any] | None:
    """`profile.json`, or None where the method measured nothing."""
    path = Path(folder) / PROFILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def csv_line(values: list[Any]) -> str:
    """One row of a CSV file, quoted where needed, without its line end."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(values)
    return buffer.getvalue()


def cut_back(folder: str | Path, epochs: int) -> None:
    """Forget what came after a checkpoint of `epochs` trained epochs.

    `epochs.jsonl` counts trained epochs from 1, so rows up to `epochs` stay. A row of `ranks.csv` shows the weights
    after so many epochs, so the ranks of the checkpoint's own weights stay too. Torn and foreign lines go.
    """
    _keep(Path(folder) / EPOCHS, lambda line: _up_to(_epoch_of_json(line), epochs))
    _keep(Path(folder) / RANKS, lambda line: line == RANK_HEADER or _up_to(_epoch_of_csv(line), epochs))


def forget_ranks(folder: str | Path, epochs: set[int]) -> None:
    """Drop the rank rows of these epochs, because they are about to be written anew."""
    _keep(Path(folder) / RANKS, lambda line: _epoch_of_csv(line) not in epochs)


def _keep(path: Path, wanted: Callable[[str], bool]) -> None:
    kept = "".join(f"{line}\n" for line in _whole_lines(path) if wanted(line))
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") != kept:
        write_atomic(path, kept)


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]


def _up_to(epoch: int | None, last: int) -> bool:
    return epoch is not None and epoch <= last


def _epoch_of_json(line: str) -> int | None:
    row = _json_row(line)
    return None if row is None else row.get("epoch")


def _json_row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _epoch_of_csv(line: str) -> int | None:
    cells = _rank_cells(line)
    return None if cells is None else int(cells[0])


def _rank_cells(line: str) -> list[str] | None:
    """The cells of a whole row of numbers; None for the head and for a torn line."""
    cells = next(csv.reader([line]), []) if '"' in line else line.split(",")
    return cells if len(cells) == len(RANK_COLUMNS) and re.fullmatch("[0-9]{1,9}", cells[0]) else None


def _rank_row(line: str) -> dict[str, Any] | None:
    cells = _rank_cells(line)
    try:
        epoch, layer, stable, scaled, full = cells or ()
        row = {
            "epoch": int(epoch),
            "layer": layer,
            "stable_rank": float(stable),
            "scaled_rank": float(scaled),
            "full_rank": int(full),
        }
    except ValueError:
        return None
    low, high = PLAUSIBLE  # a method may choose rank 0 (LC); a weight has none that small
    return (
        row
        if low < row["stable_rank"] < high and 0 <= row["scaled_rank"] < high and 0 < row["full_rank"] < high
        else None
    )
