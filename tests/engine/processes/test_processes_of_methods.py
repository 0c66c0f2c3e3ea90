"""Every method in two processes gives what it gives in one (Cuttlefish itself: test_processes.py), and one
profile decides for both."""

import pytest

from cuttlefish.worker import run_config
from tests.helpers.comparing import assert_alike
from tests.helpers.runs import EXACT, METHODS, little_config


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("full_rank", "cuttlefish")])
def test_two_processes_match_one(tmp_path, method):
    # A sum in another order can move a zero, and with it XNOR's sign: no such sum comes up in the narrower network.
    exact = EXACT | ({"model__width": 4} if method == "xnor" else {})
    alone = run_config(little_config(tmp_path / "alone", method, **exact))
    together = run_config(little_config(tmp_path / "together", method, trainer__devices=2, **exact))
    assert together.world_size == 2
    assert_alike(tmp_path / "alone", alone, tmp_path / "together", together)


MEASURED = """
import os
if "RANK" in os.environ:
    from cuttlefish.lowrank.profiling import timing

    def measure(layer, conditions):
        speedup = 2.0 if os.environ["RANK"] == "0" and layer.output_shape[-1] < 12 else 1.0
        return speedup, 1.0, None, None, speedup, 1.0

    timing.measure = measure
"""
"""To the first process all stacks but the first are worth factorizing, to the other none."""


def test_the_first_process_s_profile_decides_k_for_all(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(MEASURED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    settings = {
        "trainer__devices": 2,
        "trainer__deterministic": False,
        "trainer__timeout_minutes": 0.5,
        "method__k": "profile",
    }
    record = run_config(little_config(tmp_path / "run", "cuttlefish", **settings))
    assert record.world_size == 2 and record.switch_epoch == 2
    assert record.k == 5 and "layer2.0.conv1" in record.ranks
    assert [stack["factorize"] for stack in record.profile["stacks"]] == [False, True, True, True]
