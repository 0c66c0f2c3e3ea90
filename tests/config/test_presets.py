import pytest

from cuttlefish.config.presets import resolve_method
from cuttlefish.errors import CuttlefishError

METHOD = {
    "name": "toy",
    "preset": "default",
    "a": None,
    "b": None,
    "c": None,
    "models": {"small": {"a": 1, "b": 1}},
    "presets": {
        "default": {},
        "hard": {"a": 10, "c": 10, "models": {"small": {"b": 20}}, "data": {"digits": {"c": 30}}},
        "empty": None,
    },
    "smoke": {"c": 99},
}


def resolve(model: str = "other", data: str = "cifar10", scale: str = "free", **changes):
    return resolve_method({**METHOD, **changes}, model, data, scale)


def test_the_clean_preset_leaves_everything_to_the_settings():
    assert resolve() == {"name": "toy", "preset": "default"}
    assert resolve(preset="empty") == {"name": "toy", "preset": "empty"}


def test_a_model_s_own_knobs_hold_under_every_preset():
    assert resolve("small") == {"name": "toy", "preset": "default", "a": 1, "b": 1}


def test_the_more_specific_wins():
    assert resolve(preset="hard") == {"name": "toy", "preset": "hard", "a": 10, "c": 10}
    assert resolve("small", preset="hard") == {"name": "toy", "preset": "hard", "a": 1, "b": 20, "c": 10}
    assert resolve("small", "digits", preset="hard")["c"] == 30
    assert resolve("small", "digits", "smoke", preset="hard")["c"] == 99
    assert resolve("small", "digits", "smoke", preset="hard", c=0, b=False) == {
        "name": "toy",
        "preset": "hard",
        "a": 1,
        "b": False,
        "c": 0,
    }


def test_smoke_knobs_only_at_the_smoke_scale():
    assert resolve(scale="smoke")["c"] == 99
    assert all("c" not in resolve(scale=scale) for scale in ("free", "reduced", "paper"))


def test_a_preset_can_take_a_model_s_knob_back():
    presets = {"default": {"models": {"small": {"a": None}}}}
    assert resolve("small", presets=presets) == {"name": "toy", "preset": "default", "b": 1}


def test_what_is_resolved_stays_as_it_is():
    resolved = resolve("small", preset="hard")
    assert resolve_method(resolved, "small", "digits", "smoke") == resolved
    assert resolve_method({"name": "full_rank"}, "x", "y") == {"name": "full_rank"}


def test_the_source_is_not_changed():
    before = repr(METHOD)
    resolve("small", "digits", "smoke", preset="hard")
    assert repr(METHOD) == before


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(
        CuttlefishError, match=r"no preset hrad \(choose from default, hard, empty\); did you mean hard\?"
    ):
        resolve(preset="hrad")


@pytest.mark.parametrize(
    "changes",
    [
        {"presets": {"default": {"treshold": 1}}},
        {"presets": {"default": {"models": {"other": {"treshold": 1}}}}},
        {"presets": {"default": {"data": {"cifar10": {"treshold": 1}}}}},
        {"models": {"other": {"treshold": 1}}},
        {"smoke": {"treshold": 1}},
    ],
)
def test_a_preset_may_only_set_knobs_that_the_file_lists(changes):
    with pytest.raises(CuttlefishError, match="sets treshold.*did you mean threshold"):
        resolve(scale="smoke", threshold=None, **changes)
