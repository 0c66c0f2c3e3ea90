"""The run folder's own log: `epochs.jsonl`, `ranks.csv` and `log.txt`."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from cuttlefish.files import append_line
from cuttlefish.record import plain
from cuttlefish.run_folder import EPOCHS, LOG, RANK_COLUMNS, RANKS, csv_line, cut_back, forget_ranks
from cuttlefish.sinks.base import RunInfo, Sink


class JsonLines(Sink):
    """Each row is on the disk when the call returns. On resume the rows are cut back to the checkpoint."""

    def start(self, run: RunInfo) -> None:
        self.folder = Path(run.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.known_ranks = run.resumed_from
        cut_back(self.folder, run.resumed_from)
        if not (self.folder / RANKS).exists():
            append_line(self.folder / RANKS, csv_line(list(RANK_COLUMNS)))
        self.message(f"resumed after epoch {run.resumed_from}" if run.resumed_from else f"started, run key {run.run_key}")

    def epoch(self, row: dict[str, Any]) -> None:
        append_line(self.folder / EPOCHS, json.dumps(plain(row), ensure_ascii=False, allow_nan=False))

    def ranks(self, rows: list[dict[str, Any]]) -> None:
        # A resumed run may estimate the checkpoint's own ranks once more: the newer rows replace the older.
        repeated = {row["epoch"] for row in rows if row["epoch"] <= self.known_ranks}
        if repeated:
            forget_ranks(self.folder, repeated)
        lines = [csv_line([row[column] for column in RANK_COLUMNS]) for row in rows]
        if lines:
            append_line(self.folder / RANKS, "\n".join(lines))

    def message(self, text: str) -> None:
        time = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        append_line(self.folder / LOG, f"{time}  {text}")

    def profile(self, profile: dict[str, Any]) -> None:
        self.message(f"profile ({profile['source']}): K = {profile['k']}, {len(profile['layers'])} layers to factorize")

    def finish(self, record: dict[str, Any]) -> None:
        self.message(f"{record['status']}" + (f"\n{record['error']}" if record.get("error") else ""))
