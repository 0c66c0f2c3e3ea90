"""Compose a run's config with Hydra, on the schema as its base, into a checked `Config`.

Machines without Hydra use a resolved config instead.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cuttlefish.config.choice_checks import (
    check_model_choice,
    check_not_null,
    check_places,
    check_preset,
    refuse_old_words,
)
from cuttlefish.config.choices import GROUPS, OPTIONAL, SEVERAL
from cuttlefish.config.hydra_errors import sentence
from cuttlefish.config.schema import Config
from cuttlefish.config.validate import load_config, to_dict
from cuttlefish.errors import CuttlefishError


def _register() -> None:
    """Register the schema's defaults, the first entry of conf/config.yaml, so that overrides need no plus.

    Called on import, because the job processes of some launchers import this module and nothing else.
    """
    base = OmegaConf.create({key: value for key, value in to_dict(Config()).items() if key != "method"})
    base.model.name = "???"  # given by the chosen file or an override
    OmegaConf.set_struct(base.model.arguments, False)  # the constructors that receive them check the keys
    ConfigStore.instance().store("base", base)


def compose_config(conf: Path | Sequence[Path], overrides: Sequence[str], name: str | None = None) -> Config:
    """Return the checked config of these command-line words. Starts and writes nothing.

    Args:
        conf: The config folder, or several, the last of which has the main config.
        overrides: As on the command line.
        name: Name of the main config, `config` by default.

    Raises:
        CuttlefishError: The config is invalid.
    """
    folders = [conf] if isinstance(conf, Path) else list(conf)
    more = [f"hydra.searchpath=[{','.join(f'file://{path.absolute()}' for path in folders[:-1])}]"]
    refuse_old_words(overrides)
    try:
        with initialize_config_dir(str(folders[-1].absolute()), version_base="1.3"):
            words = [*overrides, *(more if len(folders) > 1 else [])]
            composed = compose(name or "config", overrides=words, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise CuttlefishError(sentence(error, folders)) from error
    hydra = composed.hydra
    with open_dict(composed):
        del composed["hydra"]
    return checked_config(composed, hydra)


def checked_config(composed: DictConfig, hydra: DictConfig) -> Config:
    """Return the typed config of one job. `hydra` is Hydra's node, with the overrides and choices."""
    choices, folders = hydra.runtime.choices, _config_folders(hydra)
    for group in GROUPS:
        one = isinstance(choices.get(group), str) or group in SEVERAL
        if group not in OPTIONAL and not one:
            raise CuttlefishError(f"{group} must be one choice by name, as in {group}=...; --help lists them")
    try:
        config = load_config(OmegaConf.to_container(composed, resolve=True, throw_on_missing=True))
    except OmegaConfBaseException as error:
        raise CuttlefishError(sentence(error)) from error
    check_places(config)
    check_preset(config.method, choices.preset, folders)
    check_model_choice(config.model, choices.model, folders)
    check_not_null(config.method, choices.method, folders)
    return replace(config, method={key: value for key, value in config.method.items() if value is not None})


def _config_folders(hydra: DictConfig) -> list[Path]:
    return [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]


_register()
