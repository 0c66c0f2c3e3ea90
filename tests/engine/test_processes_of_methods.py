"""Every method in two processes gives what it gives in one. (Cuttlefish itself: test_processes.py.)"""

from __future__ import annotations

import pytest

from cuttlefish.worker import run_config
from tests.comparing import assert_alike
from tests.runs import EXACT, METHODS, little_config


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("full_rank", "cuttlefish")])
def test_two_processes_match_one(tmp_path, method):
    alone = run_config(little_config(tmp_path / "alone", method, **EXACT))
    together = run_config(little_config(tmp_path / "together", method, trainer__devices=2, **EXACT))
    assert together["world_size"] == 2
    assert_alike(tmp_path / "alone", alone, tmp_path / "together", together)
