"""Turn errors of Hydra and OmegaConf into one sentence with the nearest valid word."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from cuttlefish.config.choices import GROUPS, list_choices
from cuttlefish.config.suggest import choose_from, did_you_mean


def sentence(error: BaseException, folders: Sequence[Path] = ()) -> str:
    """Return the error sentence for an exception of Hydra or OmegaConf.

    Args:
        error: The exception.
        folders: The config folders, to name nested choices, which Hydra does not.
    """
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(error, MissingConfigException) and "/" in str(error.missing_cfg_file):
        return _unknown_choice(error, folders)
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.parent_node is not None:
        return _unknown_key(cause)
    if isinstance(cause, MissingMandatoryValue):
        return f"{cause.full_key} must be given, as in {cause.full_key}=..."
    if isinstance(error, OverrideParseException):
        told = f"cannot read {error.override!r} on the command line; write key=value"
        return f"{told}, and quote values with special characters"
    for pattern, told in PATTERNS.items():
        if found := re.search(pattern, str(error)):
            return told(*found.groups())
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return f"{cause.full_key}: {str(cause).splitlines()[0]}"
    lines = (line.strip() for line in str(error).splitlines())
    return " ".join(line for line in lines if line and "hydra.cc" not in line)


def _no_choice(interpolation: str, chosen: str) -> str:
    """Explain a failed lookup of a cell's values by its choices, when a group is missing or a list."""
    missing = [group for group in re.findall(r"\w+", interpolation) if group not in chosen.split(", ")]
    return f"{missing[0]} must be one choice by name, as in {missing[0]}=...; --help lists them"


def _several_values(words: str) -> str:
    return f"{words} gives several values; add -m to run each, or [brackets] to make a list"


def _override_in_file(file: str, group: str) -> str:
    if group in GROUPS:
        told = f"{file} overrides {group}, which is chosen after it"
        return f"{told}; give {group}=... on the command line instead"
    return f"{file} overrides {group}, which is not a group{choose_from(group, GROUPS)}"


PATTERNS = {
    r"Config group override must be": lambda: (
        f"{', '.join(GROUPS)} each take the name of one choice, as in model=resnet18; "
        "to choose none, leave it out"
    ),
    r"Ambiguous value[^']*'([^']*)'": _several_values,
    r"^[^']*'([^']*)'.*requires --multirun": _several_values,
    r"Error resolving interpolation '(.*)', possible interpolation keys: (.*)": _no_choice,
    r"Multiple values for (\w+)\. .*'override \w+: (.*)'": lambda group, choice: (
        f"{group} has a choice already, which {group}={choice} replaces; leave out the +"
    ),
    r"In '(.*)': Could not override '(.*)'": _override_in_file,
}
"""Errors that can only be recognised by their text."""


def _unknown_choice(error: MissingConfigException, folders: Sequence[Path]) -> str:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    top = next((known for known in GROUPS if f"{group}/".startswith(f"{known}/")), group)
    word = f"{group}/{choice}".removeprefix(f"{top}/")
    offered = dict.fromkeys([*(error.options or []), *list_choices(folders, top)])
    return f"there is no {top}={word}{choose_from(word, offered)}"


def _unknown_key(error: OmegaConfBaseException) -> str:
    above, _, leaf = str(error.full_key).rpartition(".")
    if not len(error.parent_node):
        return f"{above} has no keys yet; give it whole, as in {above}={{{leaf}: ...}}"
    beside = [str(name) for name in error.parent_node if name != "hydra"]
    names = dict.fromkeys(beside if above else [*GROUPS, *beside])
    elsewhere = [key for key in _keys(error.parent_node._get_root()) if key.endswith(f".{leaf}")]
    if elsewhere:
        return f"there is no key {error.full_key}; did you mean {elsewhere[0]}?"
    hint = did_you_mean(leaf, names).replace("mean ", f"mean {above}." if above else "mean ")
    return f"there is no key {error.full_key}{hint or choose_from(leaf, names)}"


def _keys(config: DictConfig, where: str = "") -> Iterator[str]:
    """Yield every dotted key of a config that a user may set."""
    for key in config:
        if key == "hydra":
            continue
        path, node = f"{where}.{key}" if where else str(key), config._get_node(key)
        yield path
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            yield from _keys(node, path)
