"""Unpack ImageNet's published archives into {train,val}/<class>/, resumably. Needs no torch."""

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cuttlefish.errors import CuttlefishError
from cuttlefish.record.atomic import write_atomic

CHECKED = ".checked.json"
"""Sizes and times of the archives whose checksums were right, so that going on does not read them again."""
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
Say = Callable[[str], None]


def unpack(archives: Path, folder: Path, published: Mapping[str, str], say: Say = print) -> None:
    """Check the archives and unpack what `folder` lacks.

    Args:
        archives: Folder of the archives.
        published: Names of the training, validation and devkit archives -> MD5.
        say: Told what is done and how much is left.

    Raises:
        CuttlefishError: An archive is missing, damaged or not as published, or the disk is too small.
    """
    paths = [archives / name for name in published]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise CuttlefishError(f"{', '.join(missing)} not found in {archives}: get them from image-net.org")
    train, val, devkit = paths
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _check_sums(paths, published, folder, say)
        _check_room(train, val, folder)
        _unpack_classes(train, folder / "train", say)
        _unpack_images(val, folder / "val", _classes_of(devkit), say)
    say(f"Nothing is left: {folder} is complete")


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, tarfile.TarError) as error:
        raise CuttlefishError(
            f"unpacking into {folder} ended ({error}); the same command goes on where it stopped"
        ) from error


def _check_sums(paths: list[Path], published: Mapping[str, str], folder: Path, say: Say) -> None:
    note = folder / CHECKED
    known = json.loads(note.read_text()) if note.exists() else {}
    for number, path in enumerate(paths):
        state = [path.stat().st_size, path.stat().st_mtime_ns]
        if known.get(path.name) == state:
            continue
        say(f"Reading {path.name} to check it; {len(paths) - number - 1} archives left after it")
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != published[path.name]:
            raise CuttlefishError(
                f"{path} is damaged or not the original: its md5 is {found}, the published one "
                f"{published[path.name]}; get it again"
            )
        known[path.name] = state
        write_atomic(note, json.dumps(known))


def _check_room(train: Path, val: Path, folder: Path) -> None:
    needed = train.stat().st_size + val.stat().st_size
    there = sum(file.stat().st_size for file in folder.glob("*/*/*"))
    free = shutil.disk_usage(folder).free
    if free < needed - there:
        raise CuttlefishError(
            f"{folder} needs {(needed - there) / 2**30:.0f} GiB more and its disk has {free / 2**30:.0f} free"
        )


def _unpack_classes(archive: Path, folder: Path, say: Say) -> None:
    """Unpack an archive of one archive a class; a class appears under its name when it is whole."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(archive) as outer:
        members = [member for member in outer.getmembers() if member.name.endswith(".tar")]
        left = [member for member in members if not (folder / Path(member.name).stem).exists()]
        for number, member in enumerate(left):
            name = Path(member.name).stem
            say(f"train: {name}; {len(left) - number - 1} of {len(members)} classes left after it")
            part = folder / f".{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                inner.extractall(part, filter="data")
            os.replace(part, folder / name)


def _unpack_images(archive: Path, folder: Path, classes: list[str], say: Say) -> None:
    """Unpack images whose names end in their number from 1 on into the folders of their classes."""
    for name in sorted(set(classes)):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as images:
        members = [member for member in images if member.isfile()]
        places = {}
        for member in members:
            name = Path(member.name).name
            places[member] = folder / classes[int(Path(name).stem.rpartition("_")[2]) - 1] / name
        left = [member for member, place in places.items() if not place.exists()]
        for number, member in enumerate(left):
            if number % 5000 == 0:
                say(f"val: {len(left) - number} of {len(members)} images left")
            write_atomic(places[member], images.extractfile(member).read())


def _classes_of(devkit: Path) -> list[str]:
    """Return the class (WordNet ID) of each validation image, from the development kit."""
    from scipy.io import loadmat

    with tarfile.open(devkit) as kit:
        content = {Path(member.name).name: member for member in kit.getmembers() if member.isfile()}
        if missing := {TRUTH, META} - content.keys():
            raise CuttlefishError(f"{devkit} has no {min(missing)}")
        numbers = kit.extractfile(content[TRUTH]).read().split()
        meta = loadmat(io.BytesIO(kit.extractfile(content[META]).read()), squeeze_me=True)
    wnids = {
        int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in meta["synsets"] if not row["num_children"]
    }
    return [wnids[int(number)] for number in numbers]
