import pytest

from cuttlefish.planning.spec import read_spec
from cuttlefish.report.paper import PAPER


@pytest.fixture(scope="session")
def spec():
    """The repository's own tables."""
    return read_spec(PAPER / "tables.yaml")


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Compositions of this session; never the machine's own."""
    return tmp_path_factory.mktemp("cache")
