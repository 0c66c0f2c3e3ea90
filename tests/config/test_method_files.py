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


def cuttlefish(preset: str, model: str):
    return composed_settings("cuttlefish", f"preset={preset}", *words(model))


def test_clean_cuttlefish_profiles_k():
    resnet, vgg, other = (cuttlefish("default", model) for model in MODELS)
    assert (resnet.k, resnet.paper_k, resnet.frobenius_decay, resnet.extra_bn) == ("profile", 5, 1e-4, False)
    assert (vgg.paper_k, vgg.frobenius_decay, vgg.extra_bn) == (4, 0.0, True)
    assert (other.paper_k, other.frobenius_decay, other.extra_bn) == (None, 0.0, False)
    assert resnet.stability == "scale_free"
    assert resnet.keep_dense
    assert resnet.decay_untracked
    assert not resnet.overshoot


def test_reference_cuttlefish_does_what_the_public_code_did():
    resnet, vgg = cuttlefish("reference", "resnet18"), cuttlefish("reference", "vgg19")
    assert resnet.untracked == ["layer2.0.conv1", "layer2.0.conv2"] and vgg.untracked == []
    for built in (resnet, vgg):
        assert (built.k, built.stability) == ("paper", "reference")
        assert (built.keep_dense, built.decay_untracked, built.overshoot) == (False, False, True)
    assert (resnet.frobenius_decay, resnet.extra_bn, vgg.frobenius_decay, vgg.extra_bn) == (
        1e-4,
        False,
        0.0,
        True,
    )


def test_paper_cuttlefish_does_what_the_text_says():
    for model in ("resnet18", "vgg19"):
        built = cuttlefish("paper", model)
        assert (built.stability, built.k, built.frobenius_decay, built.extra_bn) == (
            "paper",
            "profile",
            1e-4,
            False,
        )
