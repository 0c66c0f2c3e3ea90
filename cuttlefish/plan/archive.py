"""The records of every run that a campaign started, in one small archive, and back out of it again after checking."""

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

from cuttlefish.errors import CuttlefishError
from cuttlefish.plan.campaign import LEDGER, MANIFEST, Campaign
from cuttlefish.record.folder import EPOCHS, LOG, PROFILE, RANKS, RECORD

INDEX, RUNS = "index.json", "runs"
KEPT = (RECORD, EPOCHS, RANKS, PROFILE, LOG)
ALLOWED = re.compile(
    rf"{INDEX}|{MANIFEST}|{LEDGER}|{RUNS}/[0-9a-f]{{12}}(-[\w-]+)?/({'|'.join(map(re.escape, KEPT))})"
)
LARGEST = 64 * 2**20
"""Bytes that an archive may unpack to."""


def started_runs(ledger: str) -> dict[str, str]:
    """Name → path of the run folder of every run that was started, in order. Raises CuttlefishError for a line that is none of ours."""
    found = {}
    for line in ledger.splitlines():
        try:
            folder = json.loads(line)["folder"]
            found[Path(folder).name] = folder
        except (ValueError, KeyError, TypeError) as error:
            raise CuttlefishError(f"{LEDGER} has a damaged line: {line[:80]!r}") from error
    return found


def pack(campaign: Campaign, target: Path) -> Path:
    """The files of every started run, whatever its end, with the ledger, the manifest and a checksum each."""
    ledger = (campaign.home / LEDGER).read_text(encoding="utf-8") if (campaign.home / LEDGER).exists() else ""
    members = {LEDGER: ledger.encode(), MANIFEST: (campaign.home / MANIFEST).read_bytes()}
    for run, folder in started_runs(ledger).items():
        for name in KEPT:
            if (path := campaign.root / folder / name).exists():
                members[f"{RUNS}/{run}/{name}"] = path.read_bytes()
    members[INDEX] = json.dumps(
        {name: hashlib.sha256(content).hexdigest() for name, content in members.items()}, indent=1
    ).encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return target


def unpack(archive: Path, into: Path) -> list[Path]:
    """A folder below `into` for every started run, with the files that it left; the ledger and the manifest lie in `into`.

    Raises CuttlefishError, with nothing written, if the archive is damaged, holds anything but the files of started runs, or does
    not match its checksums.
    """
    members = _read(archive)
    _check(archive, members)
    for name, content in members.items():
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        (into / name).write_bytes(content)
    return [into / RUNS / run for run in started_runs(members[LEDGER].decode())]


def _read(archive: Path) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as file:
            for entry in file:
                if not entry.isreg() or not ALLOWED.fullmatch(entry.name) or entry.name in members:
                    raise CuttlefishError(f"{archive} holds {entry.name!r}, which no campaign packs")
                if entry.size + sum(map(len, members.values())) > LARGEST:
                    raise CuttlefishError(
                        f"{archive} unpacks to more than {LARGEST // 2**20} MiB, which no campaign packs"
                    )
                members[entry.name] = file.extractfile(entry).read()
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise CuttlefishError(f"cannot read the archive {archive}: {error}") from error
    return members


def _check(archive: Path, members: dict[str, bytes]) -> None:
    index = _index(archive, members)
    for name in sorted({*index, *members} - {INDEX}):
        if name not in members or name not in index:
            raise CuttlefishError(
                f"{archive} is not whole: {name} is {'missing' if name in index else 'not in its index'}"
            )
        if hashlib.sha256(members[name]).hexdigest() != index[name]:
            raise CuttlefishError(f"{archive} is damaged: {name} does not match its checksum")
    unstarted = {name.split("/")[1] for name in members if name.startswith(f"{RUNS}/")} - set(
        started_runs(members[LEDGER].decode())
    )
    if unstarted:
        raise CuttlefishError(f"{archive} holds run {min(unstarted)}, which its ledger never started")


def _index(archive: Path, members: dict[str, bytes]) -> dict[str, Any]:
    try:
        index = json.loads(members[INDEX])
    except (KeyError, ValueError) as error:
        raise CuttlefishError(f"{archive} has no sound {INDEX}") from error
    if not isinstance(index, dict) or LEDGER not in index or MANIFEST not in index:
        raise CuttlefishError(f"{archive} has no sound {INDEX}")
    return index
