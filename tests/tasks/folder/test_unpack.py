"""Unpacking ImageNet's archives, by little ones of the same structure."""

import hashlib
import io
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.io import savemat

from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.folder.unpack import unpack

CLASSES = ["n01", "n02", "n03"]


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def tar_of(contents, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in contents.items():
            add(archive, name, content)
    return buffer.getvalue()


def devkit():
    """Six synsets, three of them leaves; validation images 1 and 4 are of the second leaf."""
    kinds = [
        ("ILSVRC2012_ID", "i4"),
        ("WNID", "U9"),
        ("words", "U9"),
        ("gloss", "U9"),
        ("num_children", "i4"),
    ]
    rows = [(number, f"n0{number}", "", "", 0 if number < 4 else 2) for number in range(1, 7)]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, kinds)})
    truth = b"2\n1\n3\n2\n"
    folder = "ILSVRC2012_devkit_t12/data"
    names = {f"{folder}/meta.mat": meta.getvalue(), f"{folder}/ILSVRC2012_validation_ground_truth.txt": truth}
    return tar_of(names, "w:gz")


@pytest.fixture
def archives(tmp_path):
    """A folder of archives, and their checksums."""
    inner = {
        f"{name}.tar": tar_of({f"{name}_{i}.JPEG": f"{name} {i}".encode() for i in (0, 1)})
        for name in CLASSES
    }
    made = {
        "train.tar": tar_of(inner),
        "val.tar": tar_of({f"ILSVRC2012_val_0000000{i}.JPEG": b"val %d" % i for i in (1, 2, 3, 4)}),
        "devkit.tar.gz": devkit(),
    }
    (tmp_path / "tars").mkdir()
    for name, content in made.items():
        (tmp_path / "tars" / name).write_bytes(content)
    return tmp_path / "tars", {name: hashlib.md5(content).hexdigest() for name, content in made.items()}


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/*/*")}


def test_all_images_lie_in_the_folders_of_their_classes(archives, tmp_path):
    said = []
    unpack(*archives[:1], tmp_path / "to", archives[1], said.append)
    found = contents(tmp_path / "to")
    assert len(found) == 10 and found["train/n02/n02_1.JPEG"] == b"n02 1"
    assert {name.split("/")[1]: None for name in found if "0000004" in name or "0000001" in name} == {
        "n02": None
    }
    assert found["val/n03/ILSVRC2012_val_00000003.JPEG"] == b"val 3"
    assert "train: n01; 2 of 3 classes left after it" in said and "val: 4 of 4 images left" in said
    assert said[-1].startswith("Nothing is left")


def test_it_goes_on_where_it_was_stopped(archives, tmp_path):
    folder, published = archives
    said = []

    def stop(words):
        said.append(words)
        if words.startswith("train: n02"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(folder, tmp_path / "to", published, stop)
    assert len(contents(tmp_path / "to")) == 2
    said.clear()
    unpack(folder, tmp_path / "to", published, said.append)
    assert len(contents(tmp_path / "to")) == 10
    assert said[0] == "train: n02; 1 of 3 classes left after it", "no archive is read twice for its checksum"
    assert not list((tmp_path / "to" / "train").glob(".*"))


def test_missing_and_damaged_archives_are_refused(archives, tmp_path):
    folder, published = archives
    (folder / "val.tar").write_bytes(b"other")
    with pytest.raises(
        CuttlefishError, match="val.tar is damaged or not the original: its md5 is .*get it again"
    ):
        unpack(folder, tmp_path / "to", published, lambda words: None)
    (folder / "val.tar").unlink()
    with pytest.raises(CuttlefishError, match="^val.tar not found in "):
        unpack(folder, tmp_path / "to", published)


def test_a_disk_that_is_too_small_is_named(archives, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(CuttlefishError, match="needs 0 GiB more and its disk has 0 free"):
        unpack(archives[0], tmp_path / "to", archives[1], lambda words: None)
