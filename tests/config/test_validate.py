from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuttlefish.config.schema import Config
from cuttlefish.config.validate import build_settings, convert, load_config, to_dict
from cuttlefish.errors import CuttlefishError


@dataclass(frozen=True)
class Knobs:
    k: Literal["profile", "paper"] | int = "profile"
    ratio: float = 0.25
    on: bool = False
    ranks: dict[str, int] | None = None
    layers: list[str] = field(default_factory=list)
    pair: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True)
class Needs:
    target: float


def refusal(call: Any, *arguments: Any) -> str:
    with pytest.raises(CuttlefishError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_empty_mapping_is_all_defaults():
    assert load_config({}) == Config()


def test_values_land_in_their_dataclasses():
    config = load_config({"model": {"width": 16}, "recipe": {"schedule": {"milestones": [0.4]}}, "seed": 3})
    assert (config.model.width, config.recipe.schedule.milestones, config.seed) == (16, [0.4], 3)
    assert config.recipe.optimizer == Config().recipe.optimizer


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    epochs=st.integers(1, 1000),
    lr=st.floats(1e-8, 10),
    milestones=st.lists(st.floats(0.01, 1.0), unique=True, max_size=4).map(sorted),
    arguments=st.dictionaries(st.text(min_size=1), st.integers() | st.text() | st.booleans(), max_size=3),
    width=st.none() | st.integers(1, 512),
)
def test_to_dict_is_the_inverse(seed, epochs, lr, milestones, arguments, width):
    ours = {"name": "resnet18", "source": "suite", "width": width}
    source = ours if width else {"source": "timm", "arguments": arguments}
    recipe = {"epochs": epochs, "schedule": {"peak_lr": lr, "base_lr": lr, "milestones": milestones}}
    config = load_config({"model": source, "recipe": recipe, "seed": seed})
    assert load_config(to_dict(config)) == config


def test_a_dict_of_a_config_shares_nothing_with_it():
    config = Config()
    to_dict(config)["recipe"]["schedule"]["milestones"].append(0.9)
    assert config.recipe.schedule.milestones == [0.5, 0.75]


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"sed": 1}, ["no key sed", "did you mean seed?"]),
        ({"recipe": {"epoch": 1}}, ["no key recipe.epoch", "did you mean recipe.epochs?"]),
        ({"recipe": {"schedule": {"warmup_epoch": 1}}}, ["did you mean recipe.schedule.warmup_epochs?"]),
        (
            {"logger": {"zzz": 1}},
            ["no key logger.zzz", "choose from console, plots, csv, tensorboard, wandb"],
        ),
        ({"seed": "1"}, ["seed must be a whole number, not '1'"]),
        ({"seed": True}, ["seed must be a whole number, not true"]),
        ({"seed": 1.0}, ["seed must be a whole number, not 1.0"]),
        ({"model": {"pretrained": 1}}, ["model.pretrained must be true or false, not 1"]),
        (
            {"recipe": {"schedule": {"peak_lr": "0.1"}}},
            ["recipe.schedule.peak_lr must be a number, not '0.1'"],
        ),
        ({"recipe": {"schedule": {"peak_lr": float("nan")}}}, ["peak_lr must be a number, not nan"]),
        ({"recipe": {"schedule": {"peak_lr": float("inf")}}}, ["peak_lr must be a number, not inf"]),
        ({"trainer": {"precision": "fp16"}}, ["one of fp32, tf32, bf16, fp64, not 'fp16'"]),
        ({"trainer": {"threads": "all"}}, ["trainer.threads must be a whole number or null, not 'all'"]),
        ({"data": {"mean": 0.5}}, ["data.mean must be a list (each a number), not 0.5"]),
        ({"data": {"mean": [0.5, "x", 0.5]}}, ["data.mean[1] must be a number, not 'x'"]),
        ({"recipe": {"optimizer": "adam"}}, ["recipe.optimizer must be a mapping, not 'adam'"]),
        ({"model": None}, ["model must be a mapping, not null"]),
        ([], ["the config must be a mapping"]),
    ],
)
def test_a_mistake_is_one_sentence_with_what_would_be_right(mapping, words):
    sentence = refusal(load_config, mapping)
    assert all(word in sentence for word in words), sentence


def test_whole_numbers_become_floats_where_a_float_is_meant():
    built = build_settings(Knobs, {"ratio": 1})
    assert type(built.ratio) is float and built.ratio == 1.0


def test_settings_skip_the_name_and_preset_of_the_run():
    assert build_settings(Knobs, {"name": "x", "preset": "y", "k": 5}) == Knobs(k=5)


def test_a_union_keeps_a_whole_number_whole_whatever_its_order():
    assert type(convert(3, float | int, "x")) is int
    assert type(convert(0.5, int | float, "x")) is float


def test_containers_are_converted_item_by_item():
    built = build_settings(Knobs, {"ranks": {"layer2.0.conv1": 5}, "layers": ("a",), "pair": [0, 1]})
    assert built == Knobs(ranks={"layer2.0.conv1": 5}, layers=["a"], pair=(0.0, 1.0))
    assert type(built.pair[0]) is float and type(built.layers) is list


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"k": "profil"}, ["method.k must be one of profile, paper or a whole number, not 'profil'"]),
        ({"k": "profil"}, ["did you mean profile?"]),
        ({"k": True}, ["method.k must be", "not true"]),
        ({"k": None}, ["method.k must be", "not null"]),
        ({"ranks": {"a": 1.5}}, ["method.ranks.a must be a whole number, not 1.5"]),
        ({"ranks": [1]}, ["method.ranks must be a mapping or null, not [1]"]),
        ({"layers": "conv1"}, ["method.layers must be a list (each a string), not 'conv1'"]),
        ({"pair": [0.9]}, ["method.pair must be a list of 2, not [0.9]"]),
        ({"thresold": 1}, ["no key method.thresold"]),
        ({"ratoi": 1}, ["did you mean method.ratio?"]),
    ],
)
def test_settings_are_refused_in_the_same_words(knobs, words):
    sentence = refusal(build_settings, Knobs, knobs)
    assert all(word in sentence for word in words), sentence


def test_a_setting_without_default_must_be_given():
    assert refusal(build_settings, Needs, {}) == "method.target must be given (a number)"


def test_long_values_are_cut_short():
    assert len(refusal(load_config, {"seed": "x" * 1000})) < 150
