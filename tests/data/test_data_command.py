import hashlib

import pytest

from cuttlefish.data.published import FILE_SETS, FileSet
from scripts.data import main


@pytest.fixture
def tiny_set(tmp_path, monkeypatch):
    """CIFAR-10 replaced by one file of six bytes, in packed form."""
    from zipfile import ZipFile

    monkeypatch.setattr("scripts.data.FILE_SETS", FILE_SETS)
    monkeypatch.setitem(
        FILE_SETS,
        "cifar10",
        FileSet("CIFAR-10", "tiny", "tiny.packed", {"train": hashlib.md5(b"abcdef").hexdigest()}),
    )
    (tmp_path / "packed" / "tiny.packed").mkdir(parents=True)
    with ZipFile(tmp_path / "packed" / "tiny.packed" / "train.0.zip", "w") as archive:
        archive.writestr("0_head.bin", b"abc")
        archive.writestr("tail.bin", b"def")
    return tmp_path / "packed"


@pytest.mark.parametrize("inside", [False, True])
def test_unpack_takes_the_folder_or_the_one_above(tiny_set, tmp_path, capsys, inside):
    assert main(["unpack", str(tiny_set / "tiny.packed" if inside else tiny_set), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "tiny" / "train").read_bytes() == b"abcdef"
    assert str(tmp_path / "out" / "tiny") in capsys.readouterr().out


def test_unpack_of_nothing_is_one_sentence(tmp_path, capsys):
    assert main(["unpack", str(tmp_path), str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_check_judges_what_it_is_asked_about(tiny_set, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CUTTLEFISH_DATA", str(tmp_path / "out"))
    assert main(["check"]) == 1
    main(["unpack", str(tiny_set), str(tmp_path / "out")])
    capsys.readouterr()
    assert main(["check"]) == 0
    shown = capsys.readouterr().out
    assert "CIFAR-10: ok, digest " in shown and "CIFAR-100's train" in shown
    assert main(["check", "cifar10"]) == 0
    assert main(["check", "cifar10", "svhn"]) == 1
    assert main(["check", "cifar10", "--root", str(tmp_path)]) == 1
    (tmp_path / "out" / "tiny" / "train").write_bytes(b"other")
    assert main(["check", "cifar10"]) == 1


def test_check_of_an_unknown_set_names_the_known(capsys):
    assert main(["check", "mnist"]) == 1
    assert "cifar10, cifar100, svhn" in capsys.readouterr().err
