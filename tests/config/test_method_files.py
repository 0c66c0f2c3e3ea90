"""conf/method/*.yaml and conf/cell against the Settings they fill: the same knobs, and every preset builds."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from cuttlefish.methods import load_method
from tests.helpers.runs import CONF, composed_settings

FILES = sorted((CONF / "method").glob("*.yaml"))
MODELS = ("resnet18", "vgg19", "some other")
PRESETS = sorted((CONF / "cell" / "method_preset").glob("*.yaml"))
OF_METHODS = sorted(path for path in (CONF / "cell").glob("method_*/*.yaml") if path.stem != "no_recipe")


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def usual(method: str) -> dict:
    """The defaults of a method's Settings; a mapping without keys is "not set", as null is."""
    settings = load_method(method).Settings
    return {field.name: getattr(settings(), field.name) or None for field in fields(settings)}


def words(model: str) -> list[str]:
    return ["model=timm", "model.name=resnet10t"] if model == "some other" else [f"model={model}"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_lists_the_method_s_knobs_and_defaults(path):
    method = read(path)
    assert (method.pop("name"), method.pop("preset")) == (path.stem, "default")
    assert {key: value or None for key, value in method.items()} == usual(path.stem)


@pytest.mark.parametrize("path", OF_METHODS, ids=lambda path: path.stem)
def test_a_cell_sets_knobs_of_its_method_and_no_default(path):
    method, _, rest = path.stem.partition("-")
    values = read(path)
    values.pop("defaults", None)
    if path in PRESETS:
        assert values.pop("preset") == rest
    assert set(values) <= set(usual(method))
    same = [key for key, value in values.items() if (value or None) == usual(method)[key]]
    assert not same or path.parent.name != "method_preset", f"{path.stem} repeats the defaults of {same}"


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
@pytest.mark.parametrize("debug", [[], ["debug=smoke"]], ids=["free", "smoke"])
def test_every_preset_builds_for_every_model(path, debug):
    method, _, preset = path.stem.partition("-")
    for model in MODELS:
        if (path.stem, model) != ("cuttlefish-reference", "some other"):  # the paper gives no K for it
            composed_settings(method, f"preset={preset}", *words(model), *debug)
