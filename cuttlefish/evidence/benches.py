"""Measurements outside runs: the files of results/bench, each of one bench on one machine."""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuttlefish.evidence.bench_checks import bench_problem
from cuttlefish.evidence.records import threads_words
from cuttlefish.record.atomic import read_regular
from cuttlefish.record.fields import device_type_of

PROFILED_BATCH = {"paper": {"stacks": 1024, "layers": 128}, "reduced": {"stacks": 128, "layers": 8}}
PROFILED_BATCH["smoke"] = PROFILED_BATCH["reduced"]
"""Batch sizes for figures 4 and 6, by scale and by what is profiled."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bench:
    """One file of results/bench.

    Attributes:
        name: The file name.
        what: Its first word (steps, ranks, overhead, profile, …).
    """

    name: str
    facts: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def what(self) -> str:
        return self.name.split("-")[0]

    @property
    def on_cpu(self) -> bool:
        return device_type_of(self.facts["hardware"]) == "cpu"

    @property
    def hardware(self) -> str:
        return " · ".join([self.facts["hardware"], *threads_words(self.facts.get("threads"))])

    def find(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return the rows that have all these values."""
        return [row for row in self.rows if all(row.get(name) == value for name, value in wanted.items())]


def load_benches(folder: str | Path) -> list[Bench]:
    """Read every bench in `folder`, the newest last; skip invalid files with a warning."""
    found = [bench for path in sorted(Path(folder).glob("*.json")) if (bench := _read(path))]
    return sorted(found, key=lambda bench: str(bench.facts.get("time")))


def newest(benches: Iterable[Bench], what: str, **facts: Any) -> Bench | None:
    """Return the newest bench of that kind with these facts."""
    own = (bench for bench in reversed(list(benches)) if bench.what == what)
    return next((bench for bench in own if facts.items() <= bench.facts.items()), None)


def benches_of(benches: Iterable[Bench], scale: str) -> list[Bench]:
    """Select the benches of a scale: CPU for reduced and smoke, GPU for the paper's.

    Profiles count only at full width, in fp32 and at the batch of the scale; at paper scale on any device.
    """
    return [bench for bench in benches if _is_of(bench, scale)]


def _is_of(bench: Bench, scale: str) -> bool:
    if bench.what != "profile":
        return bench.on_cpu == (scale != "paper")
    facts, batch = bench.facts, PROFILED_BATCH.get(scale, {}).get(bench.facts["profiled"])
    is_set = (facts["precision"], facts["batch"]) == ("fp32", batch) and facts["width"] in (None, 64)
    return is_set and (scale == "paper" or bench.on_cpu)


def _read(path: Path) -> Bench | None:
    what = path.name.split("-")[0]
    try:
        content = json.loads(read_regular(path))
        problem = bench_problem(what, content)
    except (OSError, ValueError, RecursionError) as error:
        problem = repr(error)
    if problem:
        log.warning("%s is not a bench and is left out: %s", path, problem)
        return None
    return Bench(path.name, content, content.pop("rows"))
