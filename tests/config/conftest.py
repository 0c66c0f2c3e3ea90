"""Composes conf/ as the command line does, with nothing started and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from cuttlefish.compose import checked_config
from cuttlefish.config import Config

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture(scope="session")
def conf() -> Path:
    return CONF


@pytest.fixture(scope="session")
def composed() -> Callable[..., Config]:
    """The checked config of these overrides. Composing takes a fifth of a second, so each is composed once."""
    return _composed


@cache
def _composed(*overrides: str) -> Config:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
    choices = dict(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    return checked_config(config, choices)
