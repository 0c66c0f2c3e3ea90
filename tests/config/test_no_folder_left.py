"""What only the data, the model or the machine can tell is refused before there is a folder."""

import pytest

from cuttlefish.engine import device
from cuttlefish.errors import CuttlefishError
from cuttlefish.worker import run_config
from tests.helpers.runs import little_config
from tests.helpers.sweeps import front_door


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("full_rank", {"recipe__batch_size": 57}, "recipe.batch_size=57 is above the 56 images"),
        (
            "full_rank",
            {"data__kind": "digits"},
            "data.name=synthetic is another data set than data.kind=digits",
        ),
        (
            "cuttlefish",
            {"method__ranks": {"layer3.0.conv9": 4}},
            "no layer 'layer3.0.conv9'; the nearest names are",
        ),
        (
            "cuttlefish",
            {"method__ranks": {"layer3.0.conv1": 100_000}},
            "rank 100000; it must be .* from 1 to",
        ),
        ("cuttlefish", {"method__ranks": {"conv1": 2}}, "ranks names 'conv1', which stays dense"),
        ("cuttlefish", {"method__target_params": 9}, "target_params=9 cannot be reached: with rank 1 in all"),
        ("cuttlefish", {"method__untracked": ["nosuch"]}, "untracked names 'nosuch'"),
        ("cuttlefish", {"method__max_epoch": 4}, "max_epoch=4 lies outside the run's 4 epochs"),
        ("cuttlefish", {"method__min_epoch": 4}, "min_epoch=4 lies outside the run's 4 epochs"),
        ("pufferfish", {"method__dense": ["nosuchlayer"]}, "dense names 'nosuchlayer'"),
    ],
)
def test_what_the_data_or_the_model_lacks_is_refused(tmp_path, method, settings, words):
    with pytest.raises(CuttlefishError, match=words):
        run_config(little_config(tmp_path / "run", method, **settings))
    assert not (tmp_path / "run").exists()


def test_more_processes_than_the_machine_can_run(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "available_cores", lambda: 2)
    words = "trainer.devices=16 processes are too many .* choose 4 at most"
    with pytest.raises(CuttlefishError, match=words):
        run_config(little_config(tmp_path / "run", trainer__devices=16))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["a file", "a file/below it", "a loop", "a loop/below it"])
@pytest.mark.parametrize("key", ["run_dir", "runs_root"])
def test_a_folder_that_cannot_be_made(tmp_path, place, key):
    (tmp_path / "a file").touch()
    (tmp_path / "a loop").symlink_to(tmp_path / "a loop")
    folders = {"run_dir": None, key: str(tmp_path / place)}
    with pytest.raises(CuttlefishError, match="is no folder; choose another one"):
        run_config(little_config(tmp_path, **folders))


def test_a_fork_from_a_loop_of_links(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(CuttlefishError, match="Too many levels of symbolic links"):
        run_config(little_config(tmp_path / "run", fork_from=str(tmp_path / "loop")))


def test_a_runs_root_that_is_a_file_ends_in_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    done = front_door(tmp_path, "data=synthetic", f"runs_root={tmp_path / 'file'}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "is no folder; choose another one" in done.stderr
