from pathlib import Path

import pytest

import cuttlefish
from cuttlefish.planning.cache import ROOMS, kept
from cuttlefish.record.cache import cache_folder

WANTED = [("a", "b"), ("c",), ("a", "b")]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "x.yaml").write_text("a: 1\n")
    return tmp_path


def made_by(root, folder):
    calls = []
    found = kept(root, WANTED, lambda words: calls.append(words) or {"words": list(words)}, folder)
    assert found == {("a", "b"): {"words": ["a", "b"]}, ("c",): {"words": ["c"]}}
    return calls


def test_each_is_made_once_until_a_config_changes(root, tmp_path):
    assert made_by(root, tmp_path / "cache") == [("a", "b"), ("c",)]
    assert made_by(root, tmp_path / "cache") == []
    (root / "conf" / "x.yaml").write_text("a: 2\n")
    assert len(made_by(root, tmp_path / "cache")) == 2
    (root / "conf" / "x.yaml").rename(root / "conf" / "y.yaml")
    assert len(made_by(root, tmp_path / "cache")) == 2


def test_the_rooms_that_decide_a_composition_are_there():
    package = Path(cuttlefish.__file__).parent
    assert [room for room in ROOMS if not (package / room).is_dir()] == []


@pytest.mark.parametrize("content", ["", "[]", '{"fingerprint": 1}', "\x00"])
def test_a_damaged_file_is_made_anew(root, tmp_path, content):
    made_by(root, tmp_path / "cache")
    (tmp_path / "cache" / "compositions.json").write_text(content)
    assert len(made_by(root, tmp_path / "cache")) == 2
    assert made_by(root, tmp_path / "cache") == []


def test_where_nothing_can_be_written_it_is_made_each_time(root, tmp_path):
    (tmp_path / "file").write_text("")
    assert len(made_by(root, tmp_path / "file" / "below")) == 2
    assert len(made_by(root, tmp_path / "file" / "below")) == 2


def test_the_cache_is_the_environments_or_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CUTTLEFISH_CACHE", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "cuttlefish"
    monkeypatch.setenv("CUTTLEFISH_CACHE", "/elsewhere")
    assert str(cache_folder()) == "/elsewhere"
