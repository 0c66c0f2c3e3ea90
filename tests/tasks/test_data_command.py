import hashlib
from dataclasses import replace

import pytest

from cuttlefish.tasks.registry import FileSet, data_sets
from cuttlefish.tasks.sets import torchvision_sets
from scripts.data import main


@pytest.fixture
def tiny_set(tmp_path, monkeypatch):
    """CIFAR-10 replaced by one file of six bytes."""
    files = FileSet("tiny", {"train": hashlib.md5(b"abcdef").hexdigest()}, download=lambda root: None)
    changed = replace(data_sets()["cifar10"], files=files)
    monkeypatch.setitem(torchvision_sets.DATA_SETS, "cifar10", changed)
    (tmp_path / "root" / "tiny").mkdir(parents=True)
    (tmp_path / "root" / "tiny" / "train").write_bytes(b"abcdef")
    return tmp_path / "root"


def test_check_judges_what_it_is_asked_about(tiny_set, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CUTTLEFISH_DATA", str(tmp_path / "empty"))
    assert main(["check"]) == 1
    monkeypatch.setenv("CUTTLEFISH_DATA", str(tiny_set))
    capsys.readouterr()
    assert main(["check"]) == 0
    shown = capsys.readouterr().out
    assert "CIFAR-10: ok, digest " in shown and "CIFAR-100's train" in shown
    assert main(["check", "cifar10"]) == 0
    assert main(["check", "cifar10", "svhn"]) == 1
    assert main(["check", "cifar10", "--root", str(tmp_path)]) == 1
    (tiny_set / "tiny" / "train").write_bytes(b"other")
    assert main(["check", "cifar10"]) == 1


def test_check_of_an_unknown_set_names_the_known(capsys):
    assert main(["check", "mnist"]) == 1
    assert "cifar10, cifar100, svhn" in capsys.readouterr().err
