"""Return results from a borrowed machine as a few files of limited size, and import them into results/."""

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cuttlefish.record.atomic import write_atomic
from scripts.slice.runner import read_json

MIB = 2**20
FILE, FILES, ALL = 16 * MIB, 8, 64 * MIB
RESULTS, CONTENTS, CHECKPOINT = "results.tar.gz", "contents.json", "checkpoint.tar.{:02d}"
HEAVY = ("checkpoints", "model.safetensors", "plots", "site", "data")
"""Names left out of the results."""


def pack_back(out: Path, back: Path) -> dict[str, Any]:
    """Pack results, and the newest checkpoint of each unfinished run that still fits, into `back`.

    Returns:
        The content of contents.json: the files and what was left out, with the reason.
    """
    files = [path for path in sorted(out.rglob("*")) if path.is_file()]
    light = [path for path in files if not set(path.relative_to(out).parts) & set(HEAVY)]
    results = _tar(out, light, "w:gz")
    room = min(ALL - len(results) - MIB, (FILES - 2) * FILE)
    kept: list[Path] = []
    left_out = [f"{RESULTS}: {len(results)} bytes are above a file's limit"] if len(results) > FILE else []
    for path in _checkpoints(out):
        size = path.stat().st_size
        if size > room:
            why = f"{size} bytes do not fit into the {room} that are left"
            left_out.append(f"{path.relative_to(out)}: {why}; on a new machine this run begins again")
        else:
            kept.append(path)
            room -= size + 4096
    whole = _tar(out, kept, "w") if kept else b""
    parts = [whole[start : start + FILE] for start in range(0, len(whole), FILE)]
    for old in back.glob("checkpoint.tar.*"):
        old.unlink()
    for number, part in enumerate(parts):
        write_atomic(back / CHECKPOINT.format(number), part)
    write_atomic(back / RESULTS, results)
    contents = {
        "files": [RESULTS, *(CHECKPOINT.format(number) for number in range(len(parts)))],
        "checkpoints": [str(path.relative_to(out)) for path in kept],
        "left_out": left_out,
    }
    write_atomic(back / CONTENTS, json.dumps(contents, indent=1) + "\n")
    return contents


def unpack_back(back: Path, out: Path) -> None:
    """Restore the files of `pack_back` to their places, so that a slice on another machine can continue."""
    contents = json.loads((back / CONTENTS).read_text(encoding="utf-8"))
    parts = [(back / name).read_bytes() for name in contents["files"] if name != RESULTS]
    for content in ((back / RESULTS).read_bytes(), b"".join(parts)):
        if content:
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                archive.extractall(out, filter="data")


def import_back(out: Path, results: Path) -> Iterator[str]:
    """Import finished runs and benches into a results folder; yield a line about each."""
    from cuttlefish.errors import CuttlefishError
    from scripts.records import import_run

    for folder in sorted(path.parent for path in out.glob("runs/*/record.json")):
        status = read_json(folder / "record.json").get("status")
        if status != "finished":
            yield f"{folder.name}: {status}, not imported"
            continue
        try:
            yield f"{folder.name} -> {import_run(folder, results / 'records')}"
        except CuttlefishError as error:
            yield f"{folder.name}: {error}"
    (results / "bench").mkdir(parents=True, exist_ok=True)
    for path in sorted(out.glob("bench/*")):
        yield f"{path.name} -> {shutil.copyfile(path, results / 'bench' / path.name)}"


def _checkpoints(out: Path) -> list[Path]:
    """Return the newest checkpoint of every run without a finished record, the longest trained first."""
    found = {}
    for folder in out.glob("runs/*/checkpoints"):
        there = sorted(folder.glob("epoch_*.pt"))
        record = read_json(folder.parent / "record.json")
        if there and record.get("status") != "finished":
            found[there[-1]] = record.get("compute_seconds") or 0.0
    return sorted(found, key=lambda path: -found[path])


def _tar(out: Path, paths: list[Path], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for path in paths:
            archive.add(path, path.relative_to(out))
    return buffer.getvalue()
