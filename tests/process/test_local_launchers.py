"""Each launcher for real, on this machine."""

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.helpers.sweeps import ROOT, check_one_of_two_fails, needs, records, sweep, told


def test_processes(tmp_path):
    check_one_of_two_fails(tmp_path, "processes")


def test_joblib(tmp_path):
    needs("joblib")
    check_one_of_two_fails(tmp_path, "joblib")


def test_joblib_with_one_job_at_a_time_counts_each_run_once(tmp_path):
    """joblib then runs them in the first process, which lives on when the thread or shell that started it
    ends.
    """
    needs("joblib")
    done = sweep(tmp_path, "joblib", "hydra.launcher.n_jobs=1", "seed=0,1", "recipe.epochs=1")
    assert (done.returncode, told(done)[-1]) == (0, "cuttlefish: 2 runs: 2 finished"), done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("seed=")]
    assert [row[0] for row in rows] == ["seed=0", "seed=1"]
    assert all((tmp_path / row[-1] / "record.json").exists() for row in rows)


def test_submitit_local(tmp_path):
    needs("submitit")
    check_one_of_two_fails(tmp_path, "submitit_local")
    assert list(tmp_path.glob("runs/.hydra/submitit/*/*_log.out"))


@pytest.mark.slow
def test_ray(tmp_path):
    needs("ray")
    check_one_of_two_fails(tmp_path, "ray", "hydra.launcher.ray.init.num_cpus=2")


@pytest.mark.slow
def test_a_job_that_is_warned_saves_and_is_requeued(tmp_path):
    needs("submitit")
    logs, warned = tmp_path / "runs/.hydra/submitit", []

    def warn() -> None:
        end = time.monotonic() + 300
        while not list(tmp_path.glob("runs/*/*/checkpoints/epoch_*.pt")) and time.monotonic() < end:
            time.sleep(0.05)
        controller = next(
            int(path.name) for path in logs.iterdir() if path.name.isdigit()
        )  # beside it lies `%j`
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
    assert record.status == "finished" and record.epochs_trained == 60
    assert "going on after" in next(tmp_path.glob("runs/*/*/log.txt")).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "processes"])
def test_jobs_of_several_processes(tmp_path, launcher):
    """Hydra runs in the front door alone: no worker composes, and none writes a folder of Hydra's."""
    done = sweep(tmp_path, launcher, "seed=0,1", "trainer.devices=2")
    assert done.returncode == 0, done.stderr
    assert told(done)[-1] == "cuttlefish: 2 runs: 2 finished"
    ends = sorted((record.seed, record.status, record.world_size) for record in records(tmp_path))
    assert ends == [(0, "finished", 2), (1, "finished", 2)]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "processes"])
def test_jobs_have_the_sweep_s_flags_and_hydra_words(tmp_path, launcher):
    shutil.copytree(ROOT / "conf", tmp_path / "mine")
    (tmp_path / "mine" / "config.yaml").rename(tmp_path / "mine" / "start.yaml")
    (tmp_path / "more" / "debug").mkdir(parents=True)
    (tmp_path / "more" / "debug" / "short.yaml").write_text(
        "# @package _global_\nrecipe:\n  label_smoothing: 0.2\n"
    )
    flags = [f"--config-path={tmp_path / 'mine'}", "--config-name=start", "--config-dir=more"]
    words = [
        "hydra.sweep.dir=sweep",
        "hydra.sweep.subdir=job${hydra.job.num}",
        "debug=short",
        "run_dir=${hydra:sweep.dir}/${hydra:sweep.subdir}/here",
    ]
    done = sweep(tmp_path, launcher, "seed=0,1", *words, *flags)
    assert done.returncode == 0, done.stderr
    left = {
        path.relative_to(tmp_path).as_posix(): json.loads(path.read_text())
        for path in tmp_path.rglob("record.json")
    }
    found = {path: record["seed"] for path, record in left.items()}
    assert found == {"sweep/job0/here/record.json": 0, "sweep/job1/here/record.json": 1}
    assert [record["config"]["recipe"]["label_smoothing"] for record in left.values()] == [0.2, 0.2]
