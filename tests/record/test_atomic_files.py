import os
import subprocess
import sys
from pathlib import Path

import pytest

from cuttlefish.record import atomic as files
from cuttlefish.record.atomic import append_line, atomic_file, remove_left_overs, write_atomic


def test_text_and_bytes_are_written_as_given(tmp_path):
    write_atomic(tmp_path / "a" / "text", "naïve\r\nline\n")
    write_atomic(tmp_path / "bytes", b"\x00\xff")
    assert (tmp_path / "a" / "text").read_bytes() == "naïve\r\nline\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"


def test_an_exception_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "record.json"
    write_atomic(path, "old")
    with pytest.raises(ValueError), atomic_file(path) as file:
        file.write(b"half of the n")
        raise ValueError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "record.json"
    write_atomic(path, "old")

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(OSError, match="no space"):
        write_atomic(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_content_reaches_the_disk_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    events = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle):
        events.append("flush folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "flush file")
        real_fsync(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(files.os, "replace", lambda *paths: (events.append("rename"), real_replace(*paths)))
    write_atomic(tmp_path / "x", "new")
    if not Path("/proc/self/fd").exists():
        pytest.skip("cannot tell a folder's handle from a file's here")
    assert events == ["flush file", "rename", "flush folder"]


def test_a_process_killed_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "checkpoint"
    write_atomic(path, "old")
    code = "import os, sys\nfrom cuttlefish.record.atomic import atomic_file\nwith atomic_file(sys.argv[1]) as f:\n    f.write(b'n'); os._exit(9)"
    root = Path(files.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code, str(path)], cwd=root).returncode == 9
    assert path.read_text() == "old"
    (left,) = set(tmp_path.iterdir()) - {path}
    others = [tmp_path / name for name in (".run.lock.4194303.tmp", "notes.0123abcd.tmp", ".hidden")]
    for other in others:
        other.touch()
    remove_left_overs(tmp_path)
    assert not left.exists()
    assert set(tmp_path.iterdir()) == {path, *others}, "what the writer did not make stays"


def test_new_folders_reach_the_disk_too(tmp_path, monkeypatch):
    flushed, real = [], files._flush_folder
    monkeypatch.setattr(files, "_flush_folder", lambda folder: (flushed.append(folder), real(folder)))
    write_atomic(tmp_path / "a" / "b" / "text", "x")
    assert flushed == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_files_get_the_usual_permissions_not_a_temporary_files(tmp_path):
    (tmp_path / "plain").touch()
    write_atomic(tmp_path / "atomic", "x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_lines_are_appended_whole(tmp_path):
    for word in ("one", "zwölf"):
        append_line(tmp_path / "log", word)
    assert (tmp_path / "log").read_bytes() == "one\nzwölf\n".encode()


def test_a_named_pipe_in_place_of_a_log_is_an_error_at_once(tmp_path):
    os.mkfifo(tmp_path / "log.txt")
    with pytest.raises(OSError, match="it is no regular file"):
        append_line(tmp_path / "log.txt", "started")
