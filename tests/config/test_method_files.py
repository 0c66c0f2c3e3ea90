"""conf/method/*.yaml against the Settings they fill: the same knobs, and every preset builds."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from cuttlefish.config.presets import NOT_KNOBS, resolve_method
from cuttlefish.config.validate import build_settings
from cuttlefish.methods import load_method

FILES = sorted((Path(__file__).resolve().parents[2] / "conf" / "method").glob("*.yaml"))
MODELS = ("resnet18", "vgg19", "some other")


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_lists_exactly_the_method_s_knobs_all_null(path):
    method = read(path)
    knobs = {key: value for key, value in method.items() if key not in NOT_KNOBS}
    assert method["name"] == path.stem and method["preset"] == "default"
    assert set(knobs) == {field.name for field in fields(load_method(path.stem).Settings)}
    assert set(knobs.values()) <= {None}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_preset_builds_for_every_model_at_every_scale(path):
    method, settings = read(path), load_method(path.stem).Settings
    for preset in method["presets"]:
        for model in MODELS:
            for scale in ("free", "smoke"):
                resolved = resolve_method({**method, "preset": preset}, model, "cifar10", scale)
                built = build_settings(settings, resolved)
                getattr(built, "check", lambda: None)() if model != "some other" else None
                assert all(
                    getattr(built, key) == value for key, value in resolved.items() if key not in NOT_KNOBS
                )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_presets_say_only_what_differs_from_the_clean_defaults(path):
    method, defaults = read(path), load_method(path.stem).Settings()
    assert method["presets"]["default"] == {}
    for name, preset in method["presets"].items():
        same = [
            key
            for key, value in preset.items()
            if key not in ("models", "data") and getattr(defaults, key) == value
        ]
        assert not same, f"{name} repeats the defaults of {same}"


def cuttlefish(preset: str, model: str):
    method = {**read(next(path for path in FILES if path.stem == "cuttlefish")), "preset": preset}
    return build_settings(load_method("cuttlefish").Settings, resolve_method(method, model, "cifar10"))


def test_clean_cuttlefish_profiles_k_and_chooses_decay_or_norm_by_model():
    resnet, vgg, other = (cuttlefish("default", model) for model in MODELS)
    assert (resnet.k, resnet.paper_k, resnet.frobenius_decay, resnet.extra_bn) == ("profile", 5, 1e-4, False)
    assert (vgg.paper_k, vgg.frobenius_decay, vgg.extra_bn) == (4, 0.0, True)
    assert (other.paper_k, other.frobenius_decay, other.extra_bn) == (None, 0.0, False)
    assert (
        resnet.stability == "scale_free"
        and resnet.keep_dense
        and resnet.decay_untracked
        and not resnet.overshoot
    )


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
