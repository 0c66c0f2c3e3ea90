"""What comes back of a slice: limits of files, checkpoints to go on from, and the import."""

import json

from scripts.slice import back as module
from scripts.slice.back import pack_back, unpack_back


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def made(out):
    write(out / "steps" / "one.json", b"{}")
    write(out / "runs" / "a" / "epochs.jsonl", b"{}\n")
    write(out / "runs" / "a" / "checkpoints" / "epoch_00001.pt", b"old")
    write(out / "runs" / "a" / "checkpoints" / "epoch_00002.pt", bytes(range(256)) * 200)
    write(out / "runs" / "b" / "record.json", json.dumps({"status": "finished"}).encode())
    write(out / "runs" / "b" / "checkpoints" / "epoch_00003.pt", b"of no use")
    write(out / "runs" / "b" / "model.safetensors", b"heavy")
    return out


def there(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_run_that_is_not_finished_goes_on_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FILE", 20_000)
    out = made(tmp_path / "out")
    contents = pack_back(out, tmp_path / "back")
    assert contents["checkpoints"] == ["runs/a/checkpoints/epoch_00002.pt"] and not contents["left_out"]
    files = list((tmp_path / "back").iterdir())
    assert 4 <= len(files) <= 8 and max(path.stat().st_size for path in files) <= 20_000
    unpack_back(tmp_path / "back", tmp_path / "new")
    assert there(tmp_path / "new") == {
        "steps/one.json", "runs/a/epochs.jsonl", "runs/a/checkpoints/epoch_00002.pt", "runs/b/record.json",
    }  # fmt: skip
    newest = "runs/a/checkpoints/epoch_00002.pt"
    assert (tmp_path / "new" / newest).read_bytes() == (out / newest).read_bytes()


def test_the_run_with_most_training_to_lose_comes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FILE", 12_000)
    out = made(tmp_path / "out")
    for name, seconds in (("c", 3.0), ("d", 200.0)):
        write(out / "runs" / name / "checkpoints" / "epoch_00002.pt", bytes(range(256)) * 100)
        record = {"status": "interrupted", "compute_seconds": seconds}
        write(out / "runs" / name / "record.json", json.dumps(record).encode())
    kept = pack_back(out, tmp_path / "back")["checkpoints"]
    assert kept == [f"runs/{name}/checkpoints/epoch_00002.pt" for name in ("d", "c")]


def test_a_checkpoint_that_does_not_fit_is_left_out_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FILE", 5_000)
    (left_out,) = pack_back(made(tmp_path / "out"), tmp_path / "back")["left_out"]
    assert left_out.startswith("runs/a/checkpoints/epoch_00002.pt: 51200 bytes do not fit")
    assert there(tmp_path / "back") == {"results.tar.gz", "contents.json"}
