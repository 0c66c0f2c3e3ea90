import hashlib
import io
import os
import sys
import threading
from dataclasses import replace
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from PIL import Image

from cuttlefish.config.schema import DataConfig
from cuttlefish.data import files
from cuttlefish.data.files import data_digest, data_files
from cuttlefish.data.packed import unpack
from cuttlefish.data.published import FILE_SETS, FileSet
from cuttlefish.errors import CuttlefishError

HEAD, TAIL = b"head of the pickle", b"and its tail"


def webp(images: np.ndarray) -> bytes:
    """Images (N, 32, 32, 3) one below the other, lossless."""
    buffer = io.BytesIO()
    Image.fromarray(images.reshape(-1, 32, 3)).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def write_zip(path, members):
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.fixture
def packed(tmp_path):
    """One packed file of two zips and three strips; its published checksum is that of the original bytes."""
    folder = tmp_path / "root" / "set.packed"
    folder.mkdir(parents=True)
    images = np.random.RandomState(0).randint(0, 256, (9, 32, 32, 3)).astype(np.uint8)
    strips = {f"strip_{number:03}.webp": webp(part) for number, part in enumerate(np.split(images, 3))}
    write_zip(folder / "train.0.zip", {"strip_000.webp": strips.pop("strip_000.webp"), "0_head.bin": HEAD})
    write_zip(folder / "train.1.zip", {"tail.bin": TAIL, **strips})
    original = (
        HEAD + b"".join(image[..., channel].tobytes() for image in images for channel in range(3)) + TAIL
    )
    return FileSet("Set", "set", "set.packed", {"train": hashlib.md5(original).hexdigest()}), folder, original


def test_the_original_bytes_come_back(packed, tmp_path):
    file_set, folder, original = packed
    assert unpack(file_set, folder, tmp_path / "cache") == tmp_path / "cache" / "set"
    assert (tmp_path / "cache" / "set" / "train").read_bytes() == original
    assert [path.name for path in (tmp_path / "cache" / "set").iterdir()] == ["train"]


def test_what_is_there_is_not_unpacked_again(packed, tmp_path):
    file_set, folder, _ = packed
    (tmp_path / "cache" / "set").mkdir(parents=True)
    (tmp_path / "cache" / "set" / "train").write_bytes(b"mine")
    unpack(file_set, folder, tmp_path / "cache")
    assert (tmp_path / "cache" / "set" / "train").read_bytes() == b"mine"


def test_racing_unpackers_leave_whole_files(packed, tmp_path):
    file_set, folder, original = packed
    threads = [threading.Thread(target=unpack, args=(file_set, folder, tmp_path / "cache")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() for path in (tmp_path / "cache" / "set").iterdir()] == [original]


def test_a_damaged_copy_leaves_nothing_behind(packed, tmp_path):
    file_set, folder, _ = packed
    with pytest.raises(
        CuttlefishError, match="train .*is damaged: it unpacks to md5 .* published one is 0000"
    ):
        unpack(replace(file_set, md5={"train": "0000"}), folder, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "name", ["../../evil.bin", "/tmp/evil.bin", "0_head.bin/../../evil.bin", "evil.py", "strip_1.webp"]
)
def test_foreign_members_are_refused_and_nothing_is_written(packed, tmp_path, name):
    file_set, folder, _ = packed
    write_zip(folder / "train.1.zip", {name: b"evil"})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CuttlefishError, match="unexpected member"):
        unpack(file_set, folder, tmp_path / "cache" / "deep")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_member_that_would_fill_the_memory_is_refused(packed, tmp_path):
    file_set, folder, _ = packed
    write_zip(folder / "train.1.zip", {"tail.bin": bytes((64 << 20) + 1)})
    with pytest.raises(CuttlefishError, match="unexpected member 'tail.bin' of 67108865 bytes"):
        unpack(file_set, folder, tmp_path / "cache")


def test_a_machine_without_pillow_is_told_what_to_bring(packed, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    file_set, folder, _ = packed
    with pytest.raises(
        CuttlefishError, match="needs Pillow, which is not installed here: install it, or bring the files"
    ):
        unpack(file_set, folder, tmp_path / "cache")
    assert not list(tmp_path.glob("cache/*/*"))


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_an_unreadable_or_absent_zip_is_one_sentence(packed, tmp_path, content):
    file_set, folder, _ = packed
    for path in folder.iterdir():
        path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(CuttlefishError, match=f"packed copy of train in {folder} cannot be read"):
        unpack(file_set, folder, tmp_path / "cache")


def test_a_strip_that_is_no_image_is_one_sentence(packed, tmp_path):
    file_set, folder, _ = packed
    write_zip(folder / "train.1.zip", {"strip_001.webp": b"RIFF no image"})
    with pytest.raises(CuttlefishError, match="cannot be read"):
        unpack(file_set, folder, tmp_path / "cache")


def test_a_root_with_only_the_packed_form_is_unpacked_into_the_cache(packed, tmp_path, monkeypatch):
    file_set, folder, original = packed
    monkeypatch.setitem(FILE_SETS, "cifar10", file_set)
    monkeypatch.setenv("CUTTLEFISH_CACHE", str(tmp_path / "cache"))
    before = sorted((tmp_path / "root").rglob("*"))
    config = DataConfig(root=str(tmp_path / "root"))
    assert data_files(config) == {"train": tmp_path / "cache" / "set" / "train"}
    assert sorted((tmp_path / "root").rglob("*")) == before
    digest = data_digest(config)
    (tmp_path / "root" / "set").mkdir()
    (tmp_path / "root" / "set" / "train").write_bytes(original)
    assert data_files(config) == {"train": tmp_path / "root" / "set" / "train"}
    assert data_digest(config) == digest


def test_a_file_damaged_in_the_cache_is_noticed(packed, tmp_path, monkeypatch):
    file_set, _, original = packed
    monkeypatch.setitem(FILE_SETS, "cifar10", file_set)
    monkeypatch.setenv("CUTTLEFISH_CACHE", str(tmp_path / "cache"))
    config = DataConfig(root=str(tmp_path / "root"))
    path = data_files(config)["train"]
    path.write_bytes(original[:-1])
    with pytest.raises(CuttlefishError, match=f"{path} is damaged"):
        data_files(config)


def test_a_cache_that_cannot_be_written_is_named(packed, tmp_path, monkeypatch):
    file_set, _, _ = packed
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setitem(FILE_SETS, "cifar10", file_set)
    monkeypatch.setenv("CUTTLEFISH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CuttlefishError, match="Cannot write the unpacked .*CUTTLEFISH_CACHE"):
        data_files(DataConfig(root=str(tmp_path / "root")))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("kind", "name"), [("cifar10", "test_batch"), ("cifar10", "batches.meta"), ("cifar100", "test")]
)
def test_the_real_packed_files_unpack_to_the_published_ones(shared_data, tmp_path, kind, name):
    file_set = FILE_SETS[kind]
    folder = unpack(replace(file_set, md5={name: file_set.md5[name]}), shared_data(file_set.packed), tmp_path)
    assert hashlib.md5((folder / name).read_bytes()).hexdigest() == file_set.md5[name]


def test_checksums_are_torchvisions():
    from torchvision import datasets

    lists = {kind: getattr(datasets, kind.upper()) for kind in ("cifar10", "cifar100")}
    for kind, dataset in lists.items():
        expected = dict(
            [*dataset.train_list, *dataset.test_list, [dataset.meta["filename"], dataset.meta["md5"]]]
        )
        assert FILE_SETS[kind].md5 == expected
        assert FILE_SETS[kind].folder == dataset.base_folder
    assert FILE_SETS["svhn"].md5 == {
        name: md5 for _, name, md5 in (datasets.SVHN.split_list[split] for split in ("train", "test"))
    }


def test_a_file_is_hashed_once_while_it_stays_the_same(packed, tmp_path, monkeypatch):
    file_set, folder, original = packed
    path = tmp_path / "some file"
    path.write_bytes(original)
    files._md5_of_state.cache_clear()
    assert files._md5(path) == files._md5(path) == file_set.md5["train"]
    assert files._md5_of_state.cache_info().misses == 1
    os.utime(path, ns=(0, 0))
    assert files._md5(path) == file_set.md5["train"]
    assert files._md5_of_state.cache_info().misses == 2
