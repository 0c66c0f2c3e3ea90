"""Hydra's side of a run's config: the schema as its base, its composition as a checked `Config`, its errors in one sentence.

The only module of the library that imports Hydra; a machine without it runs a resolved config.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)
from yaml import YAMLError

from cuttlefish.config.choices import GROUPS, OPTIONAL, SEVERAL, list_choices
from cuttlefish.config.presets import resolve_method
from cuttlefish.config.resolved import RENAMED
from cuttlefish.config.schema import Config
from cuttlefish.config.suggest import choose_from, did_you_mean
from cuttlefish.config.validate import load_config, to_dict
from cuttlefish.errors import CuttlefishError

HIDDEN = ("hydra", "presets", "models", "smoke")
"""Keys of a composition that are not for the command line."""


def _register() -> None:
    """Make the schema's defaults the first entry of conf/config.yaml, so that every key can be overridden without a plus.

    Done on import, because a launcher that runs jobs in processes of its own imports this module there and nothing more.
    """
    base = OmegaConf.create({key: value for key, value in to_dict(Config()).items() if key != "method"})
    base.model.name = "???"  # said by the chosen file, or to be given with it
    OmegaConf.set_struct(
        base.model.arguments, False
    )  # the constructors that these go to know their keys, we do not
    ConfigStore.instance().store("base", base)
    OmegaConf.register_new_resolver(
        "suite_width", lambda source, width: width if source == "suite" else None, replace=True
    )


def refuse_old_words(words: Sequence[str]) -> None:
    """Raise CuttlefishError for a command-line word that is spelled as in an earlier version."""
    for word in words:
        key, equals, value = word.lstrip("+").partition("=")
        old, dot, rest = key.partition(".")
        if equals and old in RENAMED:
            raise CuttlefishError(
                f"{word}: {old} is called {RENAMED[old]} now; write {RENAMED[old]}{dot}{rest}={value}"
            )


def compose_config(conf: Path, overrides: Sequence[str]) -> Config:
    """The checked config of these command-line words, with nothing started and nothing written. conf: the config folder.

    Raises CuttlefishError for what Hydra refuses too.
    """
    refuse_old_words(overrides)
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            composed = compose("config", overrides=list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise CuttlefishError(sentence(error, conf)) from error
    choices = dict(composed.hydra.runtime.choices)
    with open_dict(composed):
        del composed["hydra"]
    return checked_config(composed, choices)


def checked_config(composed: DictConfig, choices: dict[str, Any]) -> Config:
    """The typed config of one job, its method's preset resolved. choices: Hydra's, group -> file."""
    for group in GROUPS:
        one = isinstance(choices.get(group), str) or group in SEVERAL
        if group not in OPTIONAL and not one:
            raise CuttlefishError(f"{group} must be one choice by name, as in {group}=...; --help lists them")
    try:
        content = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        config = load_config(content)
    except OmegaConfBaseException as error:
        raise CuttlefishError(sentence(error)) from error
    method = resolve_method(config.method, config.model.name, config.data.name, config.scale)
    return replace(config, method=method)


def sentence(error: BaseException, conf: Path | None = None) -> str:
    """What Hydra or OmegaConf refused, with the nearest valid word. conf: the config folder, to name nested choices."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(error, MissingConfigException) and "/" in str(error.missing_cfg_file):
        return _unknown_choice(error, conf)
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.parent_node is not None:
        return _unknown_key(cause)
    if isinstance(cause, MissingMandatoryValue):
        return f"{cause.full_key} must be given, as in {cause.full_key}=..."
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r} on the command line; write key=value, and quote values with special characters"
    if "Config group override must be" in str(error):
        return f"{', '.join(GROUPS)} each take the name of one choice, as in model=resnet18; to choose none, leave it out"
    if "Ambiguous value" in str(error) or "requires --multirun" in str(error):
        return f"{str(error).split(chr(39))[1]} gives several values; add -m to run each, or [brackets] to make a list"
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return f"{cause.full_key}: {str(cause).splitlines()[0]}"
    return " ".join(
        line.strip() for line in str(error).splitlines() if "hydra.cc" not in line and line.strip()
    )


def _unknown_choice(error: MissingConfigException, conf: Path | None) -> str:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    top = next((known for known in GROUPS if f"{group}/".startswith(f"{known}/")), group)
    word = f"{group}/{choice}".removeprefix(f"{top}/")
    offered = dict.fromkeys([*(error.options or []), *(list_choices(conf, top) if conf else [])])
    return f"there is no {top}={word}{choose_from(word, offered)}"


def _unknown_key(error: OmegaConfBaseException) -> str:
    above, _, leaf = str(error.full_key).rpartition(".")
    if not len(error.parent_node):
        return f"{above} has no keys yet; give it whole, as in {above}={{{leaf}: ...}}"
    names = dict.fromkeys(
        [*(() if above else GROUPS), *(str(name) for name in error.parent_node if name not in HIDDEN)]
    )
    elsewhere = [key for key in _keys(error.parent_node._get_root()) if key.endswith(f".{leaf}")]
    if elsewhere:
        return f"there is no key {error.full_key}; did you mean {elsewhere[0]}?"
    hint = did_you_mean(leaf, names).replace("mean ", f"mean {above}." if above else "mean ")
    return f"there is no key {error.full_key}{hint or choose_from(leaf, names)}"


def _keys(config: DictConfig, where: str = "") -> Iterator[str]:
    """Every dotted key of a config that a user may set."""
    for key in config:
        if key in HIDDEN:
            continue
        path, node = f"{where}.{key}" if where else str(key), config._get_node(key)
        yield path
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            yield from _keys(node, path)


_register()
