"""Each launcher for real, on this machine."""

from __future__ import annotations

import pytest

from tests.launchers.sweeps import check_one_of_two_fails


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
