"""Learning rates behind the switch as the public code has them, by the audit's numbers."""

import pytest

from cuttlefish.config.compose import compose_config
from cuttlefish.errors import CuttlefishError
from cuttlefish.methods.schedule import build_schedule
from cuttlefish.record.folder import read_epochs
from cuttlefish.worker import run_config
from tests.helpers.runs import CONF, composed_settings, little_config

REFERENCE = ["preset=reference", "data=imagenet"]


def schedule_of(recipe):
    config = compose_config(CONF, ["data=imagenet", f"recipe={recipe}"]).recipe
    return build_schedule(config.schedule, config.epochs)


def test_on_cifar_the_rate_rises_again_in_five_epochs():
    schedule = schedule_of("cifar")
    assert [schedule.lr(epoch) for epoch in (81, 82)] == [0.8, 0.8]
    risen = {82 + i: 0.1 * (1 + 7 * i / 5) for i in range(6)}
    for overshoot in (False, True):
        again = schedule.restarted(82, overshoot)
        expected = {81: 0.8} | risen | {149: 0.8, 150: 0.08, 224: 0.08, 225: 0.008}
        assert {epoch: again.lr(epoch) for epoch in expected} == pytest.approx(expected)
    late = schedule.restarted(200, overshoot=True)
    assert [late.lr(epoch) for epoch in (200, 201, 205, 225)] == pytest.approx([0.1, 0.08, 0.08, 0.008])
    damped = schedule.restarted(200)
    assert [damped.lr(epoch) for epoch in (200, 201, 205, 225)] == pytest.approx([0.01, 0.024, 0.08, 0.008])


def test_behind_epoch_30_the_convolutional_networks_start_again_at_a_tenth():
    settings = composed_settings("cuttlefish", "model=resnet50", *REFERENCE)
    assert (
        settings.forget_milestones and not composed_settings("cuttlefish", "model=resnet50").forget_milestones
    )
    schedule = schedule_of("imagenet_cnn")
    assert [schedule.lr(epoch) for epoch in (29, 30, 59, 60, 80)] == pytest.approx(
        [0.1, 0.01, 0.01, 1e-3, 1e-4]
    )
    late = schedule.restarted(35, overshoot=True).forgetting(35)
    assert [late.lr(epoch) for epoch in (35, 36, 59, 60, 80)] == pytest.approx([0.1, 0.1, 0.1, 0.01, 1e-3])
    at = schedule.restarted(30, overshoot=True).forgetting(30)
    assert [at.lr(epoch) for epoch in (31, 60, 80)] == pytest.approx([0.01, 1e-3, 1e-4])
    early = schedule.restarted(20, overshoot=True).forgetting(20)
    assert [early.lr(epoch) for epoch in (20, 29, 30, 60)] == pytest.approx([0.1, 0.1, 0.01, 1e-3])


def test_deit_goes_on_at_two_thirds_after_an_epoch_at_almost_nothing():
    settings = composed_settings("cuttlefish", "model=deit_base", *REFERENCE)
    assert (settings.restart_scale, settings.overshoot) == (0.6667, True)
    schedule = schedule_of("deit")
    again = schedule.restarted(40, settings.overshoot).scaled(settings.restart_scale)
    assert schedule.lr(0) == again.lr(40) == 1e-6 and schedule.lr(300) == again.lr(300) == 1e-5
    share = (schedule.lr(41) - 1e-5) / (1e-3 - 1e-5)
    assert again.lr(41) == pytest.approx(1e-5 + share * (6.667e-4 - 1e-5))
    assert schedule.restarted(40).lr(40) == 1e-6 < schedule.restarted(40).lr(42) < schedule.lr(42)


@pytest.mark.parametrize(
    ("schedule", "knobs", "rates"),
    [
        (
            {"name": "cosine", "base_lr": 0.01, "peak_lr": 0.04},
            {"restart_scale": 0.5},
            [0.04, 0.034142, 0.01, 0.0029289],
        ),
        (
            {"base_lr": 0.04, "peak_lr": 0.04, "warmup_epochs": 0, "milestones": [0.25, 0.75]},
            {"forget_milestones": True},
            [0.04, 0.004, 0.04, 0.004],
        ),
    ],
    ids=["scale", "milestones"],
)
def test_a_run_takes_it_behind_its_switch(tmp_path, schedule, knobs, rates):
    fixed = {"k": 1, "switch_epoch": 2, "rank_ratio": 0.25, "frobenius_decay": 0.0}
    changes = {f"method__{key}": value for key, value in {**fixed, **knobs}.items()}
    config = little_config(tmp_path, "cuttlefish", recipe__schedule=schedule, **changes)
    assert run_config(config).switch_epoch == 2
    assert [row["lr"] for row in read_epochs(tmp_path)] == pytest.approx(rates, abs=1e-5)


def test_a_linear_schedule_refuses_the_scale(tmp_path):
    config = little_config(
        tmp_path,
        "cuttlefish",
        recipe__schedule={"name": "linear", "peak_lr": 0.04},
        method__restart_scale=0.5,
    )
    with pytest.raises(CuttlefishError, match="a linear schedule takes method.restart_lr"):
        run_config(config)
