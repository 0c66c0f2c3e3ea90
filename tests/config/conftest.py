"""Composes conf/ as the command line does, with nothing started and nothing written."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from cuttlefish.config.compose import compose_config
from cuttlefish.config.schema import Config
from tests.helpers.runs import CONF


@pytest.fixture(scope="session")
def conf() -> Path:
    return CONF


@pytest.fixture(scope="session")
def composed() -> Callable[..., Config]:
    """The checked config of these overrides. Composing takes a fifth of a second, so each is composed once."""
    return _composed


@cache
def _composed(*overrides: str) -> Config:
    return compose_config(CONF, overrides)
