import hashlib
import os
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from cuttlefish.config.schema import DataConfig
from cuttlefish.data import download
from cuttlefish.data.files import cache_folder, data_digest, data_files, data_root
from cuttlefish.data.published import FILE_SETS
from cuttlefish.errors import CuttlefishError


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))


def test_the_root_is_the_setting_then_the_environment_then_a_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUTTLEFISH_DATA", raising=False)
    assert data_root(DataConfig()) == tmp_path / "data"
    monkeypatch.setenv("CUTTLEFISH_DATA", "/from/environment")
    assert str(data_root(DataConfig())) == "/from/environment"
    assert str(data_root(DataConfig(root="/from/setting"))) == "/from/setting"


def test_the_cache_is_the_environments_or_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CUTTLEFISH_CACHE", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "cuttlefish"
    monkeypatch.setenv("CUTTLEFISH_CACHE", "/elsewhere")
    assert str(cache_folder()) == "/elsewhere"


def test_the_digest_is_the_contents_wherever_it_lies(write_cifar10, tmp_path):
    root, _ = write_cifar10()
    config = DataConfig(root=str(root), verify=False)
    digest = data_digest(config)
    lines = sorted(
        f"{path.name} {hashlib.md5(path.read_bytes()).hexdigest()}\n"
        for path in (root / "cifar-10-batches-py").iterdir()
    )
    assert digest == hashlib.sha256("".join(lines).encode()).hexdigest()
    root.rename(tmp_path / "moved")
    assert data_digest(DataConfig(root=str(tmp_path / "moved"), verify=False)) == digest


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch"])
def test_one_changed_byte_changes_the_digest(write_cifar10, name):
    root, _ = write_cifar10()
    config = DataConfig(root=str(root), verify=False)
    digest = data_digest(config)
    flip_a_byte(root / "cifar-10-batches-py" / name)
    assert data_digest(config) != digest


def test_an_unpublished_file_is_named_with_both_checksums(write_cifar10):
    root, _ = write_cifar10()
    path = root / "cifar-10-batches-py" / "data_batch_1"
    with pytest.raises(CuttlefishError) as caught:
        data_digest(DataConfig(root=str(root)))
    for part in (
        path,
        hashlib.md5(path.read_bytes()).hexdigest(),
        "c99cafc152244af753f735de768cd75f",
        "data.verify=false",
    ):
        assert str(part) in str(caught.value)


@pytest.mark.parametrize("setting", [True, False])
def test_missing_files_are_named_with_the_place_and_the_remedies(write_cifar10, monkeypatch, setting):
    root, _ = write_cifar10()
    (root / "cifar-10-batches-py" / "data_batch_4").unlink()
    monkeypatch.setenv("CUTTLEFISH_DATA", str(root))
    with pytest.raises(CuttlefishError) as caught:
        data_digest(DataConfig(root=str(root) if setting else None))
    sentence = str(caught.value)
    for part in (
        "data_batch_4",
        str(root / "cifar-10-batches-py"),
        "cifar-10.packed",
        "data.download=true",
        "scripts.data unpack",
    ):
        assert part in sentence
    assert "data_batch_3" not in sentence
    assert ("the root is data.root" in sentence) == setting
    assert ("the root is CUTTLEFISH_DATA" in sentence) != setting


def test_svhn_has_no_packed_form_to_offer(tmp_path):
    with pytest.raises(CuttlefishError) as caught:
        data_digest(DataConfig(kind="svhn", root=str(tmp_path)))
    assert "train_32x32.mat, test_32x32.mat" in str(caught.value)
    assert "unpack" not in str(caught.value)


@pytest.mark.parametrize("kind", list(FILE_SETS))
def test_a_failing_download_is_one_sentence(tmp_path, monkeypatch, kind):
    def refuse(*arguments, **settings):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(CuttlefishError, match=f"Downloading {FILE_SETS[kind].title} into .*no route to host"):
        data_digest(DataConfig(kind=kind, root=str(tmp_path), download=True))


def test_a_download_fills_the_root(tmp_path, monkeypatch):
    monkeypatch.setattr(
        download,
        "_fetch",
        lambda kind, root: [(root / name).write_bytes(b"x") for name in FILE_SETS[kind].md5],
    )
    files = data_files(DataConfig(kind="svhn", root=str(tmp_path), download=True, verify=False))
    assert files == {name: tmp_path / name for name in ("train_32x32.mat", "test_32x32.mat")}


def test_nothing_is_downloaded_unasked_or_twice(tmp_path, monkeypatch, write_cifar10):
    def fetch(kind, root):
        raise AssertionError("downloaded")

    monkeypatch.setattr(download, "_fetch", fetch)
    root, _ = write_cifar10()
    assert data_digest(DataConfig(root=str(root), download=True, verify=False))
    with pytest.raises(CuttlefishError, match="not found"):
        data_digest(DataConfig(root=str(tmp_path / "empty")))


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
import cuttlefish.data, cuttlefish.data.files, cuttlefish.data.packed, cuttlefish.data.cifar, cuttlefish.data.download
for kind in ("digits", "synthetic"):
    cuttlefish.data.files.data_digest(DataConfig(kind=kind))
assert not {"torch", "torchvision", "sklearn"} & set(sys.modules)
cuttlefish.data.load_task
assert "torch" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
