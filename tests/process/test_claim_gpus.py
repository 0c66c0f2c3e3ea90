"""Jobs on one machine share out its GPUs: here made-up ones, since taking a device does not touch it."""

import subprocess
import sys

import pytest

from tests.helpers.sweeps import ROOT, environment

JOB = """
import os, sys
from pathlib import Path
from cuttlefish.process.claim_gpus import take_devices
for number in map(int, sys.argv[2:]):
    print(*take_devices(number, Path(sys.argv[1])), "visible", os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def job(tmp_path):
    """Starts a process that takes devices and holds them until it is ended; returns it and what it printed."""
    jobs = []

    def start(visible, *numbers):
        command = [sys.executable, "-c", JOB, str(tmp_path), *map(str, numbers)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        jobs.append(
            subprocess.Popen(
                command, cwd=ROOT, text=True, env=environment(CUDA_VISIBLE_DEVICES=visible), **pipes
            )
        )
        return jobs[-1], [jobs[-1].stdout.readline().strip() for _ in numbers]

    yield start
    for process in jobs:
        process.kill()
        process.communicate()


def test_each_job_takes_a_device_that_is_free_again_later(job):
    (_, first), (second, taken), (_, third) = job("4,5,7", 1), job("4,5,7", 1), job("4,5,7", 1)
    assert [first, taken, third] == [["4 visible 4"], ["5 visible 5"], ["7 visible 7"]]
    second.kill()
    second.wait()
    assert job("4,5,7", 1)[1] == ["5 visible 5"]


def test_more_jobs_than_devices_share_them_evenly(job):
    assert [job("0,1", 1)[1][0][0] for _ in range(5)] == ["0", "1", "0", "1", "0"]


def test_a_worker_process_keeps_its_devices_for_its_next_job(job):
    assert job("0,1,2", 1, 1, 2)[1] == ["0 visible 0", "0 visible 0", "0 1 visible 0,1"]
    assert job("0,1,2", 2)[1] == ["2 0 visible 2,0"]


def test_no_devices_no_locks(job, tmp_path):
    assert job("", 1)[1] == ["visible"]
    assert not list(tmp_path.iterdir())
