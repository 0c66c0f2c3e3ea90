import hashlib
import os
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from importlib import import_module

import pytest

from cuttlefish.config.schema import DataConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.files import _md5, _md5_of_state, data_digest, data_folder, data_root
from cuttlefish.tasks.registry import data_sets

SVHN = ("train_32x32.mat", "test_32x32.mat")


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))


def test_the_root_is_setting_then_environment_then_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUTTLEFISH_DATA", raising=False)
    assert data_root(DataConfig()) == tmp_path / "data"
    monkeypatch.setenv("CUTTLEFISH_DATA", "/from/environment")
    assert str(data_root(DataConfig())) == "/from/environment"
    assert str(data_root(DataConfig(root="/from/setting"))) == "/from/setting"


def test_the_digest_is_the_contents_wherever_it_lies(write_cifar10, tmp_path):
    root, _ = write_cifar10()
    config = DataConfig(root=str(root))
    digest = data_digest(config)
    lines = sorted(
        f"{path.name} {hashlib.md5(path.read_bytes()).hexdigest()}\n"
        for path in (root / "cifar-10-batches-py").iterdir()
    )
    assert digest == hashlib.sha256("".join(lines).encode()).hexdigest()
    root.rename(tmp_path / "moved")
    assert data_digest(DataConfig(root=str(tmp_path / "moved"))) == digest


@pytest.mark.parametrize("name", ["train_32x32.mat", "test_32x32.mat"])
def test_one_changed_byte_changes_the_digest(tmp_path, name):
    for split in ("train", "test"):
        (tmp_path / f"{split}_32x32.mat").write_bytes(b"some content")
    config = DataConfig(kind="svhn", root=str(tmp_path), verify=False)
    digest = data_digest(config)
    flip_a_byte(tmp_path / name)
    assert data_digest(config) != digest


def test_an_unpublished_file_is_named_with_both_checksums(write_cifar10):
    root, _ = write_cifar10()
    path = root / "cifar-10-batches-py" / "data_batch_1"
    published = hashlib.md5(path.read_bytes()).hexdigest()
    flip_a_byte(path)
    with pytest.raises(CuttlefishError) as caught:
        data_digest(DataConfig(root=str(root)))
    for part in (path, hashlib.md5(path.read_bytes()).hexdigest(), published):
        assert str(part) in str(caught.value)
    assert "data.verify=false" not in str(caught.value), "that is refused for pickles"
    for split in ("train", "test"):
        (root / f"{split}_32x32.mat").write_bytes(b"other")
    with pytest.raises(CuttlefishError, match="data.verify=false to use it as it is"):
        data_digest(DataConfig(kind="svhn", root=str(root)))


@pytest.mark.parametrize("setting", [True, False])
def test_missing_files_are_named_with_the_place_and_the_remedies(write_cifar10, monkeypatch, setting):
    root, _ = write_cifar10()
    (root / "cifar-10-batches-py" / "data_batch_4").unlink()
    monkeypatch.setenv("CUTTLEFISH_DATA", str(root))
    with pytest.raises(CuttlefishError) as caught:
        data_digest(DataConfig(root=str(root) if setting else None))
    sentence = str(caught.value)
    for part in ("data_batch_4", str(root / "cifar-10-batches-py"), "data.download=true"):
        assert part in sentence
    assert "data_batch_3" not in sentence
    assert ("the root is data.root" in sentence) == setting
    assert ("the root is CUTTLEFISH_DATA" in sentence) != setting


@pytest.mark.parametrize("root", ["~nobody_such/x", "x" * 300, "/dev/null", "loop", "pipes"])
def test_an_odd_root_is_one_sentence(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    os.symlink("loop", "loop")
    os.makedirs("pipes/cifar-10-batches-py")
    for name in data_sets()["cifar10"].files.md5:
        os.mkfifo(f"pipes/cifar-10-batches-py/{name}")
    with pytest.raises(CuttlefishError) as caught:
        data_digest(DataConfig(root=root))
    assert "\n" not in str(caught.value)


def test_every_missing_file_is_named(tmp_path):
    with pytest.raises(CuttlefishError, match="train_32x32.mat, test_32x32.mat not found"):
        data_digest(DataConfig(kind="svhn", root=str(tmp_path)))


@pytest.mark.parametrize("kind", [kind for kind, item in data_sets().items() if item.files])
def test_a_failing_download_is_one_sentence(tmp_path, monkeypatch, kind):
    def refuse(*arguments, **settings):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    title = data_sets()[kind].title
    with pytest.raises(CuttlefishError, match=f"Downloading {title} into .*no route to host"):
        data_digest(DataConfig(kind=kind, root=str(tmp_path), download=True))


@pytest.fixture
def replace_download(monkeypatch):
    """Sets what fetches the files of a kind."""

    def replaced(kind, download):
        table = import_module("cuttlefish.tasks.sets.torchvision_sets").DATA_SETS
        files = replace(table[kind].files, download=download)
        monkeypatch.setitem(table, kind, replace(table[kind], files=files))

    return replaced


def test_a_download_fills_the_root(tmp_path, replace_download):
    replace_download("svhn", lambda root: [(root / name).write_bytes(b"x") for name in SVHN])
    assert data_folder(DataConfig(kind="svhn", root=str(tmp_path), download=True, verify=False)) == tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(SVHN)


def test_nothing_is_downloaded_unasked_or_twice(tmp_path, replace_download, write_cifar10):
    def download(root):
        raise AssertionError("downloaded")

    replace_download("cifar10", download)
    root, _ = write_cifar10()
    assert data_digest(DataConfig(root=str(root), download=True))
    with pytest.raises(CuttlefishError, match="not found"):
        data_digest(DataConfig(root=str(tmp_path / "empty")))


def test_a_file_is_hashed_once_while_it_stays_the_same(tmp_path):
    path = tmp_path / "some file"
    path.write_bytes(b"content")
    _md5_of_state.cache_clear()
    assert _md5(path) == _md5(path) == hashlib.md5(b"content").hexdigest()
    assert _md5_of_state.cache_info().misses == 1
    os.utime(path, ns=(0, 0))
    assert _md5(path) == hashlib.md5(b"content").hexdigest()
    assert _md5_of_state.cache_info().misses == 2


def test_made_data_is_told_apart_by_its_parameters():
    settings = [{}, {"classes": 4}, {"image_size": 16}, {"train_images": 30}, {"test_images": 30}]
    digests = [data_digest(DataConfig(kind="synthetic", **setting)) for setting in settings]
    digests += [data_digest(DataConfig(kind="digits", **setting)) for setting in ({}, {"image_size": 32})]
    assert len(set(digests)) == 7
    assert data_digest(DataConfig(kind="digits", image_size=16)) == data_digest(DataConfig(kind="digits"))
    assert data_digest(DataConfig(kind="synthetic", classes=10, flip=True)) == data_digest(
        DataConfig(kind="synthetic")
    )


def test_digests_need_no_torch():
    program = """
import sys
from cuttlefish.config.schema import DataConfig
import cuttlefish.tasks, cuttlefish.tasks.files, cuttlefish.tasks.sets.torchvision_sets
for kind in ("digits", "synthetic"):
    cuttlefish.tasks.files.data_digest(DataConfig(kind=kind))
assert not {"torch", "torchvision", "sklearn"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
