"""Kill little runs at every point of writing and at random moments, resume them, and compare the bits.

    python -m tests.torture                    every write, flush, rename and removal once, and 1,000 random
                                                 kills; all methods
    python -m tests.torture --points 50 --kills 30 --real 2 --methods cuttlefish

Most deaths are simulated inside this process: an exception that nothing catches, after which every further
attempt to write fails as well, so that no clean-up runs. `--real` adds deaths of a process of its own by SIGKILL.
A file is also torn in the middle of a write. A trial is lost if the resumed run differs from an uninterrupted one
in a bit of its final checkpoint, its record's metrics, its epoch rows or its ranks. Prints a table by phase and
writes it to results/torture/. Exit code 1 if anything was lost.
"""

import argparse
import json
import logging
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path

from cuttlefish.record.atomic import write_atomic
from cuttlefish.record.provenance import device_name, git_commit, git_dirty, package_versions
from tests.torture import ARMS, Trial, Trials

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    if options.one:
        method, point, folder = options.one
        Trials(method, Path(folder).parent).die_for_good(Path(folder), int(point))
        return 0
    outcomes: list[Trial] = []
    _origin()
    began = time.monotonic()
    spawned = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with tempfile.TemporaryDirectory() as root, ProcessPoolExecutor(options.jobs, spawned) as pool:
        trials = {
            pool.submit(_of_method, method, Path(root) / method, options): method
            for method in options.methods
        }
        for done in as_completed(trials):
            outcomes += done.result()
            _write(outcomes, time.monotonic() - began, options)
            print(
                f"{trials[done]}: {len(outcomes)} trials so far, {sum(not o.identical for o in outcomes)} lost",
                flush=True,
            )
    print(table(outcomes))
    for outcome in outcomes:
        if not outcome.identical:
            print(f"LOST {outcome}")
    return int(any(not outcome.identical for outcome in outcomes))


def _of_method(method: str, root: Path, options: argparse.Namespace) -> list[Trial]:
    logging.getLogger("cuttlefish").setLevel(logging.ERROR)
    trials = Trials(method, root)
    draw = random.Random(f"{options.seed} {method}")
    writes = trials.write_points()
    chosen = (
        writes if options.points is None else sorted(draw.sample(writes, min(options.points, len(writes))))
    )
    outcomes = [trials.killed_at([point]) for point in chosen]
    kills = -(
        -options.kills // len(options.methods)
    )  # each method's share, rounded up: not one fewer than asked
    while kills > 0:
        # Most runs are killed more than once, the later times while they are resuming.
        times = min(draw.choice((1, 2, 3)), kills)
        outcomes.append(trials.killed_at([trials.draw(draw) for _ in range(times)], drawn=True))
        kills -= outcomes[-1].kills  # a later death may lie behind the end of what was left to do
    for point in [trials.draw(draw) for _ in range(options.real)]:
        outcomes.append(
            trials.killed_for_good(point, lambda folder, point: _real_death(method, point, folder))
        )
    return outcomes


def _real_death(method: str, point: int, folder: Path) -> int:
    return subprocess.run(
        [sys.executable, "-m", "tests.torture", "--one", method, str(point), str(folder)],
        cwd=ROOT,
        check=False,
    ).returncode


def table(outcomes: list[Trial]) -> str:
    """Markdown: a row a phase, with the trials whose first death fell there."""
    rows = ["| phase | trials | kills | resumed identical | lost |", "|---|---:|---:|---:|---:|"]
    for phase in [*sorted({outcome.phase for outcome in outcomes}), "all"]:
        these = [outcome for outcome in outcomes if phase in (outcome.phase, "all")]
        same = sum(outcome.identical for outcome in these)
        rows.append(
            f"| {phase} | {len(these)} | {sum(outcome.kills for outcome in these)} | {same} | {len(these) - same} |"
        )
    return "\n".join(rows)


def _write(outcomes: list[Trial], seconds: float, options: argparse.Namespace) -> None:
    kinds = Counter(outcome.kind for outcome in outcomes)
    text = (
        "# Killed and resumed\n\n"
        f"`python -m tests.torture{_as_typed(options)}`; methods: {', '.join(sorted({o.method for o in outcomes}))}. {_origin()}.\n"
        f"{kinds['write']} trials at {'every point' if options.points is None else 'points'} of writing, {kinds['random']} with random kills "
        f"({sum(o.kills for o in outcomes if o.kind == 'random')} of them), {kinds['real']} by SIGKILL of a process. A trial counts where its first "
        "death fell.\n\n"
    )
    write_atomic(options.out / "table.md", text + table(outcomes) + "\n")
    summary = {
        "origin": _origin(),
        "seconds": round(seconds),
        "seed": options.seed,
        "trials": [vars(outcome) for outcome in outcomes],
    }
    write_atomic(options.out / "trials.json", json.dumps(summary) + "\n")


@cache
def _origin() -> str:
    """As of the start: the working tree may go on while this runs."""
    return f"Commit {git_commit()}{' and changes' if git_dirty() else ''}, torch {package_versions()['torch']}, {device_name('cpu')}"


def _as_typed(options: argparse.Namespace) -> str:
    given = {name: getattr(options, name) for name in ("points", "kills", "real", "seed")}
    return "".join(f" --{name} {value}" for name, value in given.items() if value is not None)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture", description="Kill little runs everywhere, resume, compare the bits."
    )
    parser.add_argument("--points", type=int, help="points of writing a method, drawn at random (all)")
    parser.add_argument("--kills", type=int, default=1000, help="random kills, shared by the methods (1000)")
    parser.add_argument("--real", type=int, default=3, help="deaths by SIGKILL of a process, a method (3)")
    parser.add_argument("--methods", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="methods at a time (one a core)"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "torture")
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "POINT", "FOLDER"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)
