"""Each launcher for real, on this machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.launchers.sweeps import check_one_of_two_fails, records, sweep, told


def test_processes(tmp_path):
    check_one_of_two_fails(tmp_path, "processes")


def test_joblib(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="hydra-joblib-launcher is not installed")
    check_one_of_two_fails(tmp_path, "joblib")


def test_submitit_local(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not installed")
    check_one_of_two_fails(tmp_path, "submitit_local")
    assert list(tmp_path.glob("runs/.hydra/submitit/*/*_log.out"))


@pytest.mark.slow
def test_ray(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="hydra-ray-launcher is not installed")
    check_one_of_two_fails(tmp_path, "ray", "hydra.launcher.ray.init.num_cpus=2")


@pytest.mark.slow
def test_a_job_that_its_scheduler_warns_saves_itself_and_is_put_back_into_the_queue(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not installed")
    logs, warned = tmp_path / "runs/.hydra/submitit", []

    def warn() -> None:
        end = time.monotonic() + 300
        while not list(tmp_path.glob("runs/*/*/checkpoints/epoch_*.pt")) and time.monotonic() < end:
            time.sleep(0.05)
        controller = next(int(path.name) for path in logs.iterdir() if path.name.isdigit())  # beside it lies `%j`
        task = int(Path(f"/proc/{controller}/task/{controller}/children").read_text().split()[0])
        os.kill(task, signal.SIGUSR2)
        warned.append(task)

    thread = threading.Thread(target=warn, daemon=True)
    thread.start()
    done = sweep(tmp_path, "submitit_local", "seed=0", "recipe.epochs=60", "trainer.checkpoint_epochs=2")
    thread.join()
    log = "".join(path.read_text() for path in logs.glob("*/*_log.*"))
    assert done.returncode == 0 and warned, done.stderr
    assert "SIGUSR2: finishing this step, then saving" in log and "Requeued job" in log
    (record,) = records(tmp_path)
    assert record["status"] == "finished" and record["epochs_trained"] == 60
    assert "going on after" in next(tmp_path.glob("runs/*/*/log.txt")).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "processes"])
def test_jobs_of_several_processes(tmp_path, launcher):
    """Hydra runs in the front door alone: no worker composes, and none writes a folder of Hydra's."""
    done = sweep(tmp_path, launcher, "seed=0,1", "trainer.devices=2")
    assert done.returncode == 0, done.stderr
    assert told(done)[-1] == "cuttlefish: 2 runs: 2 finished"
    ends = sorted((record["seed"], record["status"], record["world_size"]) for record in records(tmp_path))
    assert ends == [(0, "finished", 2), (1, "finished", 2)]
