"""What can become of checkpoints on a disk: a damaged one falls back, nothing else does, and none that is
sound is lost."""

import errno
import hashlib
import io
import os
import shutil
from pathlib import Path

import pytest
import torch

from cuttlefish.engine.run import resolve_run
from cuttlefish.engine.saving.checkpoint import (
    BEFORE_SWITCH,
    MAGIC,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from cuttlefish.errors import CuttlefishError
from cuttlefish.record.record import read_record
from cuttlefish.worker import run_config
from tests.engine.test_faults import fill_disk
from tests.helpers.comparing import differences
from tests.helpers.runs import little_config


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, run_config(little_config(folder, "cuttlefish"))


def test_a_disk_full_during_a_checkpoint(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        fill_disk(patch, "epoch_", after=2)
        with pytest.raises(
            CuttlefishError,
            match=r"cannot write checkpoint .*epoch_00003.pt: No space left on device; the last one is intact",
        ):
            run_config(little_config(tmp_path, "cuttlefish"))
    assert newest_checkpoint(tmp_path / "checkpoints")["progress"]["trained"] == 2
    assert read_record(tmp_path).status == "failed"
    assert not list(tmp_path.rglob("*.tmp"))
    assert differences(tmp_path, run_config(little_config(tmp_path, "cuttlefish")), *whole) == []


def sealed(payload):
    """With the right checksum."""
    return MAGIC + hashlib.sha256(payload).digest() + payload


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


DAMAGES = {
    "cut short": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "one bit flipped": lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
    "cut in its first line": lambda content: content[: len(MAGIC) - 2],
    "a stranger's pickle": lambda content: b"cos\nsystem\n(S'touch owned'\ntR.",
    "a stranger's pickle, well sealed": lambda content: sealed(b"cos\nsystem\n(S'touch owned'\ntR."),
    "no pickle, well sealed": lambda content: sealed(b"x" * 10_000),
    "a list, well sealed": lambda content: sealed(saved([1])),
    "another run's": lambda content: sealed(
        saved({"run": {"run_key": "0" * 12, "data_digest": "x", "seed": 3}})
    ),
}


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A run that ended after three epochs: its folder holds the checkpoints of the second and third."""
    with monkeypatch.context() as patch:
        fill_disk(patch, "epoch_00004")
        with pytest.raises(CuttlefishError):
            run_config(little_config(tmp_path, "cuttlefish"))
    return tmp_path / "checkpoints"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(damage, whole, begun, caplog):
    newest = begun / "epoch_00003.pt"
    newest.write_bytes(DAMAGES[damage](newest.read_bytes()))
    record = run_config(little_config(begun.parent, "cuttlefish"))
    assert "falling back to the one before" in caplog.text and "epoch_00003.pt" in caplog.text
    assert differences(begun.parent, record, *whole) == [] and not Path("owned").exists()


def test_a_named_pipe_in_place_of_a_checkpoint_is_passed_over(whole, begun, caplog):
    (begun / "epoch_00003.pt").unlink()
    os.mkfifo(begun / "epoch_00003.pt")
    record = run_config(little_config(begun.parent, "cuttlefish"))
    assert "epoch_00003.pt is no file" in caplog.text and differences(begun.parent, record, *whole) == []


def test_a_checkpoint_of_another_seed_is_not_taken(whole, begun, tmp_path, caplog):
    """Copied in, it would finish under this run's key."""
    other = little_config(tmp_path / "other", "cuttlefish", seed=1)
    run_config(other)
    newest = max((tmp_path / "other" / "checkpoints").glob("epoch_*.pt"))
    shutil.copy(newest, begun / newest.name)
    record = run_config(little_config(begun.parent, "cuttlefish"))
    assert f"{newest.name} is another run's (run key {resolve_run(other).key}, here " in caplog.text
    assert "seed 1, here 0" in caplog.text and differences(begun.parent, record, *whole) == []


def test_another_run_s_checkpoints_alone_are_refused(tmp_path):
    run_config(little_config(tmp_path / "other", seed=1))
    shutil.copytree(tmp_path / "other" / "checkpoints", tmp_path / "run" / "checkpoints")
    with pytest.raises(CuttlefishError, match="every checkpoint in .* is damaged or another run's: remove"):
        run_config(little_config(tmp_path / "run"))


@pytest.mark.parametrize("change", [
    {"model": {}}, {"model": 3}, {"optimizer": {}}, {"progress": {"trained": "x"}}, {"progress": []},
    {"clock": 5}, {"method": 7},
    {"schedule": None}, {"random": {}},
])  # fmt: skip
def test_a_checkpoint_that_does_not_fit_ends_in_one_sentence(begun, change):
    path = begun / "epoch_00003.pt"
    path.write_bytes(sealed(saved(load_checkpoint(path) | change)))
    with pytest.raises(CuttlefishError) as raised:
        run_config(little_config(begun.parent, "cuttlefish"))
    assert str(raised.value).startswith(f"the checkpoint in {begun} does not fit this run (")


def test_checkpoints_of_another_version_are_left_alone(begun):
    newest = begun / "epoch_00003.pt"
    newest.write_bytes(newest.read_bytes().replace(MAGIC, b"cuttlefish checkpoint 9\n"))
    before = contents(begun)
    with pytest.raises(
        CuttlefishError,
        match=r"epoch_00003.pt was written by another version of this suite; use that version, or remove it",
    ):
        run_config(little_config(begun.parent, "cuttlefish"))
    assert contents(begun) == before


def test_damaged_checkpoints_alone_are_not_begun_over(begun):
    for path in begun.glob("epoch_*.pt"):
        path.write_bytes(b"damaged")
    before = contents(begun)
    with pytest.raises(
        CuttlefishError,
        match=r"every checkpoint in .*checkpoints is damaged: remove that folder to start the run again",
    ):
        run_config(little_config(begun.parent, "cuttlefish"))
    assert contents(begun) == before


@pytest.mark.parametrize(
    ("owner", "name", "file"), [(Path, "read_bytes", "epoch_00003.pt"), (os, "listdir", "checkpoints")]
)
def test_a_checkpoint_that_cannot_be_read_is_not_damaged(owner, name, file, whole, begun, monkeypatch):
    real, before = getattr(owner, name), contents(begun)

    def stale(path):
        if Path(path).name == file:
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stale)
        with pytest.raises(
            CuttlefishError,
            match=rf"cannot read .*{file}: Stale file handle; once it can be read, run the same command again",
        ):
            run_config(little_config(begun.parent, "cuttlefish"))
    assert contents(begun) == before
    assert differences(begun.parent, run_config(little_config(begun.parent, "cuttlefish")), *whole) == []


def no_links(*_):
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_a_file_system_without_hard_links(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    assert differences(tmp_path, run_config(little_config(tmp_path, "cuttlefish")), *whole) == []
    assert load_checkpoint(tmp_path / "checkpoints" / BEFORE_SWITCH)["progress"]["trained"] == 2


def test_a_disk_full_before_the_switch(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    fill_disk(monkeypatch, BEFORE_SWITCH)
    with pytest.raises(
        CuttlefishError,
        match=r"cannot write checkpoint .*before_switch.pt: No space left on device; the last one is intact",
    ):
        run_config(little_config(tmp_path, "cuttlefish"))


def test_an_old_checkpoint_that_cannot_go_costs_only_room(tmp_path, monkeypatch, caplog):
    real = Path.unlink

    def refuse(path, **keywords):
        if path.name == "epoch_00001.pt":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        real(path, **keywords)

    monkeypatch.setattr(Path, "unlink", refuse)
    for epochs in (1, 2, 3, 4):
        save_checkpoint(tmp_path, epochs, {"epochs": epochs})
    assert sorted(contents(tmp_path)) == ["epoch_00001.pt", "epoch_00003.pt", "epoch_00004.pt"]
    assert "epoch_00001.pt: Operation not permitted" in caplog.text


def test_damaged_later_ones_do_not_push_out_sound_earlier_ones(tmp_path):
    for epochs in (1, 2, 3):
        save_checkpoint(tmp_path, epochs, {"epochs": epochs})
    for name in ("epoch_00003.pt", "epoch_00002.pt"):
        (tmp_path / name).write_bytes(b"damaged")
    save_checkpoint(tmp_path, 1, {"epochs": 1}, step=4)
    save_checkpoint(tmp_path, 1, {"epochs": 1}, step=8)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "epoch_00001_step_000004.pt",
        "epoch_00001_step_000008.pt",
    ]


def test_nothing_is_unpickled_freely(tmp_path):
    class Stranger:
        def __reduce__(self):
            return os.system, ("touch owned",)

    path = save_checkpoint(tmp_path, 1, {"state": Stranger()})
    with pytest.raises(Exception, match="[Ww]eights.only"):
        load_checkpoint(path)
    assert not Path("owned").exists()


def test_only_the_run_itself_removes_what_killed_writes_left(tmp_path):
    """Another process may look for checkpoints at any time, and what it finds half-written may be this run's
    at work."""
    left = [tmp_path / ".record.json.0123abcd.tmp", tmp_path / "checkpoints" / ".epoch_00001.pt.0123abcd.tmp"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert newest_checkpoint(tmp_path / "checkpoints") is None and all(path.exists() for path in left)
    run_config(little_config(tmp_path, recipe__epochs=1, recipe__schedule__warmup_epochs=0))
    assert not list(tmp_path.rglob("*.tmp"))
