"""`run.py replay=<record, run folder or run key>`: rerun a record's exact config, list the differences.

Further words may set where and how to run (data.root=, trainer.device=, logger.…), not what. Exit codes: 0 if
the results agree, 4 if not, else run.py's.
"""

import sys
import traceback
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from cuttlefish.config.identity import NOT_IN_KEY
from cuttlefish.config.resolved import RESOLVED, in_present_words, load
from cuttlefish.config.schema import Config
from cuttlefish.config.validate import load_config
from cuttlefish.errors import EXIT_AT_ONCE, CuttlefishError, Interrupted, exit_code
from cuttlefish.evidence.agreement import Difference, bitwise, differences, first_unlike_epoch, unlike
from cuttlefish.record.fields import Record
from cuttlefish.record.find import find_record
from cuttlefish.record.folder import RECORD, read_epochs
from cuttlefish.record.record import read_record, validate_record

EXIT_DIFFERS = 4
WORD = "replay="
NOT_MINE = ("run_dir", "runs_root", "fork_from", "method.name", "method.preset")
SHORTENED = ".../"
"""Prefix that replaces the machine's folders in a record."""


def main(words: Sequence[str]) -> int:
    """Run a command line that contains `replay=…`; return the exit code."""
    try:
        return replay(words)
    except (CuttlefishError, Interrupted) as error:
        print(f"cuttlefish: {error}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        return EXIT_AT_ONCE
    except Exception as error:
        traceback.print_exc()
        return exit_code(error)


def replay(words: Sequence[str], runs: Path = Path("runs")) -> int:
    """Rerun the record and print the differences; return the exit code."""
    asked = [word.removeprefix(WORD) for word in words if word.startswith(WORD)]
    if len(asked) != 1:
        raise CuttlefishError(
            "replay takes one record at a time, as in replay=<record, run folder or run key>"
        )
    path = find_record(asked[0])
    original = _sound(path)
    config = replayed_config(path, original, [word for word in words if not word.startswith(WORD)])
    from cuttlefish.engine.run import resolve_run  # imports torch
    from cuttlefish.worker import run_or_skip  # imports torch

    run = resolve_run(replace(config, run_dir=str(_folder(runs, original.run_key))))
    _same_run(original, run.key, run.digest)
    _, repeated = run_or_skip(run.config)
    exact = bitwise(original, repeated)
    found = differences(original, repeated, exact)
    rows = read_epochs(path.parent) if exact else []
    epoch = first_unlike_epoch(rows, read_epochs(run.folder)) if rows else None
    print(f"\n{comparison(original, repeated, found, exact, epoch)}\nreplayed in {run.folder}")
    return 0 if all(item.within for item in found) and epoch is None else EXIT_DIFFERS


def replayed_config(path: Path, record: Record, words: Sequence[str]) -> Config:
    """Return a record's config with the folders of this machine.

    They come from the run folder's resolved.yaml; the record does not have them.
    """
    beside = path.parent / RESOLVED
    there = load(beside) if beside.exists() else {}
    mapping = there if there.get("run_key") == record.run_key else record.config
    if not mapping:
        raise CuttlefishError(f"{path} has no config, so it cannot be run again")
    mapping = deepcopy(in_present_words(mapping))
    for key in ("run_key", "data_digest"):
        mapping.pop(key, None)
    if str(mapping.get("fork_from") or "").startswith(SHORTENED):
        raise CuttlefishError(
            f"{path} started from the state of run {record.forked_from}, which only its run folder can name"
        )
    if str(mapping["data"].get("root") or "").startswith(SHORTENED):
        mapping["data"]["root"] = None
    mapping["runs_root"], mapping["run_dir"] = "runs", None
    if mapping["trainer"].get("threads") is None and mapping["trainer"].get("device") != "cuda":
        mapping["trainer"]["threads"] = record.threads  # sets the order of sums, hence the last bits
    for word in words:
        _set(mapping, word)
    return load_config(mapping)


def comparison(
    one: Record, other: Record, found: Sequence[Difference], exact: bool, epoch: int | None
) -> str:
    """Format the differences in hardware and software, then the table of differences in results."""
    from cuttlefish.display.screen import plain_table
    from cuttlefish.display.summary import as_text

    sides = ("recorded", "right"), ("replayed", "right"), ("allowed", "left")
    table = plain_table(f"Replay of {one.run_key}", ("", "left"), *sides, ("", "left"))
    for item in found:
        words = _shown(item.recorded), _shown(item.repeated), item.allowed
        table.add_row(item.name, *words, "" if item.within else "OUTSIDE")
    near = "within tolerance (the same bits take the same CPU, torch and threads, and deterministic mode)"
    lines = [f"expected: {'the same bits' if exact else near}"]
    lines += [f"differs: {words}" for words in unlike(one, other)]
    lines += [f"epochs.jsonl differs from epoch {epoch} on"] if epoch is not None else []
    return "\n".join([*lines, as_text(table)])


def _sound(path: Path) -> Record:
    record = read_record(path)
    problems = validate_record(record)
    if problems or record.status != "finished":
        why = problems[0] if problems else "that run has not finished"
        raise CuttlefishError(f"{path} cannot be compared with: {why}")
    return record


def _folder(runs: Path, key: str) -> Path:
    """Return the first of runs/replay/<key>-1, -2, … without a finished replay, to resume one."""
    for number in count(1):
        folder = runs / "replay" / f"{key}-{number}"
        if not (folder / RECORD).exists() or read_record(folder).status != "finished":
            return folder


def _same_run(record: Record, key: str, digest: str) -> None:
    if digest != record.data_digest:
        raise CuttlefishError(
            f"the data here is not that of run {record.run_key} (digest {digest[:12]}, there "
            f"{record.data_digest[:12]})"
        )
    if key != record.run_key:
        raise CuttlefishError(
            f"this version of the suite makes another run ({key}) of the config of {record.run_key}: its "
            f"method or its defaults have changed since commit {str(record.git_commit)[:12]}"
        )


def _set(mapping: dict[str, Any], word: str) -> None:
    key, equals, text = word.partition("=")
    if not equals or key in NOT_MINE or not (key in NOT_IN_KEY or key.startswith("logger.")):
        raise CuttlefishError(
            f"{word}: a replay runs what was recorded; only where and how can be said, as in data.root=… or "
            "trainer.device=cpu"
        )
    *sections, last = key.split(".")
    for name in sections:
        mapping = mapping.setdefault(name, {})
    try:
        mapping[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise CuttlefishError(f"cannot read {word!r}; write key=value") from None


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
