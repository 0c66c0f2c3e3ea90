"""What campaigns started: the ledgers in results/campaigns, a row a start, whatever became of it."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cuttlefish.errors import EXIT_AT_ONCE, EXIT_BAD_INPUT, EXIT_BUSY, EXIT_SAVED
from cuttlefish.evidence.records import Evidence, LeftOut, by_start
from cuttlefish.report.tables.table import Block, Cell, Column, Table, text_cell

COLUMNS = [
    Column("run", "run", numeric=False), Column("start", "start (UTC)", numeric=False), Column("end", "end (UTC)", numeric=False),
    Column("became", "what became of it", numeric=False), Column("minutes", "minutes"), Column("hardware", "hardware", numeric=False),
]  # fmt: skip
ENDS = {
    0: "came to its end", EXIT_SAVED: "stopped, its state saved", EXIT_AT_ONCE: "stopped at once", EXIT_BUSY: "another process had it",
    EXIT_BAD_INPUT: "refused",
}  # fmt: skip
NO_END = "no end was noted: killed, or it goes on"
NOTE = "Every start that a ledger tells of; a run that went on in a later slice has a row for each. The hardware is that of the run's record."
TYPES = {"time": str, "run_key": str, "run": str, "event": str}
LONGEST = 1e9
OF_AN_END = {"exit_code": int, "seconds": int | float}


@dataclass(frozen=True)
class Start:
    """end, code, seconds: None where no end was noted."""

    run: str
    key: str
    time: str
    end: str | None = None
    code: int | None = None
    seconds: float | None = None


def campaigns_table(folder: Path, runs: Iterable[Evidence]) -> tuple[Table | None, list[LeftOut]]:
    """Every start in the ledgers of `folder`, each once (a later ledger of a campaign repeats the earlier ones), in their order;
    None where there is none. Also the ledgers that cannot be read, and those with lines that are no entries, which are left out."""
    found: dict[tuple[str, str], Start] = {}
    damaged = []
    for path in sorted(folder.glob("*.jsonl")):
        try:
            lines, bad = _entries(path)
        except OSError as error:
            damaged.append(LeftOut(path, f"a ledger that cannot be read: {error.strerror}"))
            continue
        damaged += (
            [LeftOut(path, f"a ledger: {bad} of {bad + len(lines)} lines are no entries and are left out")]
            if bad
            else []
        )
        for start in _starts(lines):
            known = found.get((start.time, start.key))
            found[start.time, start.key] = start if known is None or known.end is None else known
    starts = [found[place] for place in sorted(found)]
    begun, records = {start.key: start.time for start in reversed(starts)}, _by_key(runs)
    rows = [_row(start, _hardware(start, begun[start.key], records[start.key])) for start in starts]
    return Table("campaigns", "Campaigns", COLUMNS, [Block("", rows)], [NOTE]) if rows else None, damaged


def _entries(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines that are entries, and how many are none."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    sound = [entry for line in lines if (entry := _entry(line)) is not None]
    return sound, len(lines) - len(sound)


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or entry.get("event") not in ("started", "ended"):
        return None
    wanted: Mapping[str, Any] = TYPES | (OF_AN_END if entry["event"] == "ended" else {})
    is_one = all(isinstance(entry.get(name), kind) for name, kind in wanted.items())
    return entry if is_one and (entry["event"] == "started" or 0 <= entry["seconds"] < LONGEST) else None


def _starts(entries: Iterable[Mapping[str, Any]]) -> Iterator[Start]:
    """An end belongs to the last start of its run."""
    begun: dict[str, Start] = {}
    for entry in entries:
        key = entry["run_key"]
        if entry["event"] == "started":
            if key in begun:
                yield begun.pop(key)
            begun[key] = Start(entry["run"], key, entry["time"])
        elif key in begun:
            yield replace(
                begun.pop(key), end=entry["time"], code=entry["exit_code"], seconds=entry["seconds"]
            )
    yield from begun.values()


def _by_key(runs: Iterable[Evidence]) -> dict[str, list[Evidence]]:
    records: dict[str, list[Evidence]] = defaultdict(list)
    for run in by_start(runs):
        records[run.record["run_key"]].append(run)
    return records


def _hardware(start: Start, begun: str, records: Iterable[Evidence]) -> str:
    """Of the run's last record that was begun by the campaign (at `begun` at the earliest) and not after this start's end."""
    own = [
        run.hardware
        for run in records
        if begun <= run.record["started"] <= (start.end or run.record["started"])
    ]
    return own[-1] if own else ""


def _when(time: str | None) -> Cell:
    return Cell(time.replace("T", " ").removesuffix("+00:00"), time) if time else Cell()


def _end(code: int | None) -> str:
    if code is None:
        return NO_END
    return ENDS.get(code) or (f"killed by signal {-code}" if code < 0 else f"failed with code {code}")


def _row(start: Start, hardware: str) -> list[Cell]:
    minutes = None if start.seconds is None else start.seconds / 60
    shown = Cell() if minutes is None else Cell(f"{minutes:.1f}", minutes)
    return [
        text_cell(start.run, (start.key,)), _when(start.time), _when(start.end), text_cell(_end(start.code)), shown, text_cell(hardware),
    ]  # fmt: skip
