"""Check that a config's values are consistent with the choices on the command line."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cuttlefish.config.resolved import RENAMED
from cuttlefish.config.schema import Config, ModelConfig
from cuttlefish.config.suggest import choose_from
from cuttlefish.errors import CuttlefishError

OLD_WORDS = {**RENAMED, "method.preset": "preset"}

TARGETS = ("method.target_params", "method.match")
SIZE_KNOBS = ("method.alpha", "method.rho", "method.rank_ratio")
"""Knobs that have a value anyway and that a target replaces; others exclude a target in their Settings."""


def refuse_old_words(words: Iterable[str]) -> None:
    """Raise CuttlefishError for a command-line word that was renamed since an earlier version."""
    for word in words:
        key, equals, value = word.lstrip("+").partition("=")
        for old, new in OLD_WORDS.items():
            if equals and f"{key}.".startswith(f"{old}."):
                now = f"{new}{key.removeprefix(old)}={value}"
                raise CuttlefishError(f"{word}: {old} is called {new} now; write {now}")


def refuse_two_sizes(words: Iterable[str]) -> None:
    """Raise CuttlefishError for words that set a size twice: a target, and a knob that would be ignored.

    The composed config cannot tell: presets give such knobs a value, which a target replaces.
    """
    given = dict(word.lstrip("+").partition("=")[::2] for word in words)
    target = next((word for word in TARGETS if given.get(word, "null") != "null"), None)
    knob = next((word for word in SIZE_KNOBS if word in given), None)
    if target and knob:
        raise CuttlefishError(f"{knob} and {target} both set the size; give one of them")


def check_places(config: Config) -> None:
    """Raise CuttlefishError for a run's folder that begins with ~, which only a shell expands."""
    for key in ("run_dir", "runs_root", "fork_from"):
        place = getattr(config, key)
        if place is not None and place.startswith("~"):
            raise CuttlefishError(
                f"{key}={place} begins with ~, which only a shell expands; write the whole path"
            )


def check_preset(method: Mapping[str, Any], chosen: str, folders: Sequence[Path]) -> None:
    """Raise CuttlefishError if `method.preset` is not the chosen preset, because there is no such preset."""
    set_by_files = method.get("preset", "default")
    if set_by_files == chosen:
        return
    if chosen == "default":
        raise CuttlefishError(
            f"method.preset={set_by_files} is not for files to set; choose preset={set_by_files}"
        )
    name = method["name"]
    found = [path.stem for folder in folders for path in folder.glob(f"cell/method_preset/{name}-*.yaml")]
    offered = ["default", *sorted(stem.removeprefix(f"{name}-") for stem in found)]
    raise CuttlefishError(f"preset: {name} has no preset {chosen}{choose_from(chosen, offered)}")


def check_model_choice(model: ModelConfig, chosen: str, folders: Sequence[Path]) -> None:
    """Raise CuttlefishError for a model that has a config file but was not chosen by it."""
    own = []
    for folder in folders:
        for path in sorted((folder / "model").rglob("*.yaml"), key=lambda path: (len(path.parts), path)):
            values = _read([folder], str(path.relative_to(folder)))
            same_source = (values.get("source") == "suite") == (model.source == "suite")
            if values.get("name") == model.name and same_source:
                own.append(path.relative_to(folder / "model").with_suffix("").as_posix())
    usual = [choice for choice in own if "/" not in choice]  # a folder's are for a size of their own
    if usual and chosen not in own:
        raise CuttlefishError(
            f"model={chosen} with model.name={model.name} would miss the values that go with {model.name}; "
            f"write model={' or model='.join(usual)}"
        )


def check_not_null(method: Mapping[str, Any], chosen: str, folders: Sequence[Path]) -> None:
    """Raise CuttlefishError for a null override of a knob that has a value in the method's file."""
    for key, usual in _read(folders, f"method/{chosen}.yaml").items():
        if method.get(key) is None and usual is not None:
            raise CuttlefishError(f"method.{key} cannot be null; it is {usual} unless another value is given")


def _read(folders: Sequence[Path], name: str) -> dict[str, Any]:
    """Return the mapping of the first such file, empty if there is none."""
    for folder in folders:
        if (folder / name).is_file():
            return yaml.safe_load((folder / name).read_text(encoding="utf-8")) or {}
    return {}
