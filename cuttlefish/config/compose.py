"""Hydra's side of a run's config: the schema as its base, and its composition as a checked `Config`.

A machine without Hydra runs a resolved config.
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

from cuttlefish.config.choice_checks import check_model_choice, check_not_null, check_preset, refuse_old_words
from cuttlefish.config.choices import GROUPS, OPTIONAL, SEVERAL
from cuttlefish.config.hydra_errors import sentence
from cuttlefish.config.schema import Config
from cuttlefish.config.validate import load_config, to_dict
from cuttlefish.errors import CuttlefishError


def _register() -> None:
    """Make the schema's defaults the first entry of conf/config.yaml, so that no override needs a plus.

    Done on import, because a launcher with processes of its own imports this module there and no more.
    """
    base = OmegaConf.create({key: value for key, value in to_dict(Config()).items() if key != "method"})
    base.model.name = "???"  # said by the chosen file, or to be given with it
    OmegaConf.set_struct(
        base.model.arguments, False
    )  # the constructors that these go to know their keys, we do not
    ConfigStore.instance().store("base", base)


def compose_config(conf: Path | Sequence[Path], overrides: Sequence[str], name: str | None = None) -> Config:
    """The checked config of these command-line words, with nothing started and nothing written.

    Args:
        conf: The config folder, or several of which the last has the main config.
        overrides: As on the command line.
        name: The main config's, `config` by default.

    Raises:
        CuttlefishError: The config is refused, by Hydra or by us.
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
    """The typed config of one job. hydra: Hydra's own node, which knows the words and the choices."""
    choices, folders = hydra.runtime.choices, _config_folders(hydra)
    for group in GROUPS:
        one = isinstance(choices.get(group), str) or group in SEVERAL
        if group not in OPTIONAL and not one:
            raise CuttlefishError(f"{group} must be one choice by name, as in {group}=...; --help lists them")
    try:
        config = load_config(OmegaConf.to_container(composed, resolve=True, throw_on_missing=True))
    except OmegaConfBaseException as error:
        raise CuttlefishError(sentence(error)) from error
    check_preset(config.method, choices.preset, folders)
    check_model_choice(config.model, choices.model, folders)
    check_not_null(config.method, choices.method, folders)
    return replace(config, method={key: value for key, value in config.method.items() if value is not None})


def _config_folders(hydra: DictConfig) -> list[Path]:
    return [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]


_register()
