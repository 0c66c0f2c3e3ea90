"""Tests marked `real_data` skip where the data is absent; CUTTLEFISH_REQUIRE_DATA makes a skip a failure."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.helpers import made_up_run


def pytest_configure(config):
    # Fewer surprises on shared machines: tests are small, and many threads only get in each other's way.
    torch.set_num_threads(min(2, torch.get_num_threads()))
    # The same examples every time: what a draw finds becomes an example of its own.
    settings.register_profile("deterministic", derandomize=True, database=None)
    settings.load_profile("deterministic")


def pytest_collection_modifyitems(config, items):
    root = os.environ.get("CUTTLEFISH_DATA")
    if not (root and Path(root).is_dir()):
        for item in items:
            if item.get_closest_marker("real_data"):
                item.add_marker(
                    pytest.mark.skip(reason="CUTTLEFISH_DATA does not point to the real data sets")
                )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and item.get_closest_marker("real_data") and os.environ.get("CUTTLEFISH_REQUIRE_DATA"):
        report.outcome = "failed"
        why = "was skipped, but CUTTLEFISH_REQUIRE_DATA asks for the real data"
        report.longrepr = f"{item.nodeid} {why}: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def made_up():
    """The functions of tests/helpers/made_up_run.py."""
    return made_up_run
