from __future__ import annotations

from pathlib import Path

import pytest

from cuttlefish.report.table_spec import read_spec

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def spec():
    """The repository's own tables."""
    return read_spec(ROOT / "results" / "tables.yaml", ROOT / "conf" / "experiment")


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Compositions of this session; never the machine's own."""
    return tmp_path_factory.mktemp("cache")
