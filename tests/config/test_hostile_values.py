"""Every field of every settings class against hostile values: meaningful, or refused in one sentence."""

from dataclasses import fields, is_dataclass
from math import inf, nan
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from cuttlefish.config.schema import Config
from cuttlefish.config.validate import build_settings, convert, load_config, to_dict
from cuttlefish.errors import CuttlefishError
from cuttlefish.limits import Limit, OptionsOf
from cuttlefish.lowrank.stability import Rule
from cuttlefish.methods import build_method, load_method
from cuttlefish.methods.own_recipe import Changes
from tests.helpers.mappings import with_value
from tests.helpers.runs import CONF

METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
FREE = {"model.arguments", "data.settings", "method", "untracked", "dense", "freeze", "ignore"}
"""Without a range: what a library's constructor or a method's Settings check, and names of layers."""

DEEP: Any = "bottom"
for _ in range(100):
    DEEP = [DEEP]
HOSTILE = [
    nan, inf, -inf, -1, -1.0, 0, -0.0, 1e300, 1e-300, 10**9, -(10**30), 10**30, 10**400, 10**5000, 0.5, 1.5,
    True, False, None,
    "", " ", "nosuch", "0", "1e-2", "null", "../..", "~nobody/x", "a\0b", "a\nb", "\x1b[31m", "\ud800",
    "x" * 300, "/" + "y" * 5000,
    [], [[]], [None], [nan], [-1], ["nosuch"], [0.5] * 100, {}, {"": None}, {"nosuch": -1},
    {"a": {"b": [nan]}}, {1: 2}, DEEP,
    {None: 1}, (1, 2), b"bytes", object(), {1, 2}, 1j,
]  # fmt: skip


def sections(cls: type, where: str = "") -> list[tuple[str, type]]:
    """The class and, under their dotted keys, those in it."""
    inner = [(field.name, get_type_hints(cls)[field.name]) for field in fields(cls)]
    below = [item for name, kind in inner if is_dataclass(kind) for item in sections(kind, f"{where}{name}.")]
    return [(where, cls), *below]


def every_field() -> list[Any]:
    of_methods = [(f"{name}:", load_method(name).Settings) for name in METHODS]
    classes = [*sections(Config), *of_methods, ("rule:", Rule), ("changes:", Changes)]
    named = [(where, cls, field.name) for where, cls in classes for field in fields(cls)]
    return [pytest.param(cls, name, id=f"{where}{name}") for where, cls, name in named]


@pytest.mark.parametrize(("cls", "name"), every_field())
def test_hostile_values_are_refused_in_a_sentence_that_names_the_key(cls, name):
    for value in HOSTILE:
        try:
            built = build_settings(cls, {name: value}, "section")
        except CuttlefishError as error:
            sentence = str(error)
            assert name in sentence and "\n" not in sentence and len(sentence) < 400, sentence
        else:
            kept = convert({name: to_dict(built)[name]}, cls, "section")
            assert kept == built, "what is accepted is kept as it is"


def limits(kind: Any) -> list[Any]:
    """The limits and options of an annotation and of what it is made of."""
    return [
        *(mark for mark in getattr(kind, "__metadata__", ()) if isinstance(mark, Limit | OptionsOf)),
        *(mark for arm in get_args(kind) for mark in limits(arm) if get_origin(kind) is not Literal),
    ]


@pytest.mark.parametrize(("cls", "name"), every_field())
def test_every_field_has_a_range_or_words(cls, name, request):
    kind = get_type_hints(cls, include_extras=True)[name]
    plain = get_type_hints(cls)[name]
    arms = get_args(plain) or (plain,)
    closed = all(get_origin(arm) is Literal or arm in (bool, NoneType) for arm in arms)
    if is_dataclass(plain) or get_origin(plain) is Literal or closed:
        return
    key = request.node.callspec.id.split(":")[-1]
    written = {("cuttlefish:k"): "in contradictions", "rule:relaxed": "pairs"}
    assert limits(kind) or key in FREE or request.node.callspec.id in written


def refused(method: str, **knobs: Any) -> str:
    with pytest.raises(CuttlefishError) as caught:
        build_method({"name": method, **knobs})
    return str(caught.value)


@pytest.mark.parametrize(
    ("method", "knobs"),
    [
        ("cuttlefish", {"stability": "foo"}),
        ("cuttlefish", {"stability": "foo", "switch_epoch": 2}),
        ("cuttlefish", {"scheme": "foo"}),
        ("cuttlefish", {"frobenius_decay": -1.0}),
        ("cuttlefish", {"ranks": {"layer1.0.conv1": -4}}),
        ("cuttlefish", {"min_epoch": -5}),
        ("cuttlefish", {"threshold": -1.0}),
        ("cuttlefish", {"round_to": 1_000_000}),
        ("cuttlefish", {"stability_options": {"foo": 1}}),
        ("cuttlefish", {"stability_options": {"threshold": "high"}}),
        ("cuttlefish", {"profile_repeats": 10**9}),
        ("cuttlefish", {"ranks": {"layer1.0.conv1": 4}, "rank_ratio": 0.5}),
        ("cuttlefish", {"k": -1}),
        ("eb", {"eps": -1.0}),
        ("lc", {"l_decay": 2.0}),
        ("lc", {"steps": 1_000_000}),
        ("lc", {"recipe": {"epochs": 0}}),
        ("imp", {"fraction": 1e-300}),
    ],
)
def test_an_absurd_knob_is_refused_whether_or_not_it_is_used(method, knobs):
    assert f"method.{list(knobs)[0]}" in refused(method, **knobs)


def test_a_size_to_match_stands_beside_the_rho_of_a_network(composed):
    """conf/cell gives VGG-19 its rho; the tables then give the size instead."""
    config = composed("method=si_fd", "model=vgg19", "method.match=0123456789ab")
    assert config.method["rho"] == 0.0476074
    assert build_method(config.method).settings.match == "0123456789ab"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.name", ""),
        ("data.classes", 1),
        ("data.classes", 1_000_000),
        ("trainer.threads", 99999999999999999999),
        ("trainer.timeout_minutes", 1e300),
        ("experiment_name", "x" * 256),
        ("run_dir", "a/" + "ü" * 128),
        ("model.name", "x" * 256),
        ("logger.wandb.project", "a\0b"),
    ],
)
def test_an_absurd_value_is_refused(key, value):
    with pytest.raises(CuttlefishError, match=key):
        load_config(with_value({}, key, value))
