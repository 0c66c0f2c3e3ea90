"""All tests here need a GPU. CUTTLEFISH_GPU_TESTS_ON=cpu tries the tests themselves where there is none."""

import os
from pathlib import Path

import pytest
import torch

ON = os.environ.get("CUTTLEFISH_GPU_TESTS_ON", "cuda")
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if ON == "cuda" and not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="torch sees no GPU"))


@pytest.fixture(scope="session")
def device():
    return ON
