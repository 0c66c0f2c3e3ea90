"""The linear schedule, against the formula of the public code: peak * (1 - t / T) at step t of T."""

from dataclasses import replace

import pytest
import torch

from cuttlefish.config.recipe import ScheduleConfig
from cuttlefish.engine.step import StepRunner
from cuttlefish.errors import CuttlefishError
from cuttlefish.methods.schedule import build_schedule, schedule_from_dict, schedule_to_dict, timed
from cuttlefish.worker import run_config
from tests.helpers.runs import little_config


def linear(epochs=3, **settings):
    return build_schedule(
        ScheduleConfig(name="linear", **{"base_lr": 2e-5, "peak_lr": 2e-5} | settings), epochs
    )


def test_it_falls_to_zero_step_by_step():
    steps, total, schedule = 78, 3 * 78, linear()
    for t in range(total + 1):
        assert schedule.lr(t // steps + t % steps / steps) == pytest.approx(2e-5 * (1 - t / total), abs=1e-18)


@pytest.mark.parametrize("unit", ["warmup_fraction", "warmup_steps"])
@pytest.mark.parametrize("warmup", [0, 6, 20])
def test_it_is_that_of_transformers_at_every_step(warmup, unit):
    from transformers import get_linear_schedule_with_warmup  # seconds to import

    steps, epochs = 20, 3
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    theirs = get_linear_schedule_with_warmup(optimizer, warmup, steps * epochs)
    given = warmup if unit == "warmup_steps" else warmup / (steps * epochs)
    ours = timed(linear(epochs, base_lr=1e-15, peak_lr=1e-3, **{unit: given}), steps)
    for t in range(steps * epochs):
        assert ours.lr(t // steps + t % steps / steps) == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=1e-14
        )
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("settings", [{"warmup_epochs": 1}, {"warmup_fraction": 0.25}])
def test_it_warms_up(settings):
    schedule = linear(4, base_lr=1e-6, peak_lr=1e-4, **settings)
    rates = [schedule.lr(epoch) for epoch in (0, 0.5, 1, 2.5, 4)]
    assert rates == pytest.approx([1e-6, 5.05e-5, 1e-4, 5e-5, 0])


def test_after_a_switch_the_line_goes_on_behind_a_warm_up():
    schedule = linear(4, base_lr=0.0, peak_lr=1.0, warmup_epochs=1).restarted(2)
    assert [schedule.lr(epoch) for epoch in (1.5, 2, 2.25, 3, 4)] == pytest.approx([5 / 6, 0, 0.25, 1 / 3, 0])
    assert linear(4).restarted(2).lr(2.5) == linear(4).lr(2.5)


def test_the_public_code_has_two_schedules():
    schedule = replace(linear(5).own_part(1), restart_lr=4e-5)
    assert [schedule.lr(epoch) for epoch in (0, 0.5)] == pytest.approx([2e-5, 1e-5])
    again = schedule.restarted(1)
    assert [again.lr(epoch) for epoch in (0.5, 1, 3, 5)] == pytest.approx([1e-5, 4e-5, 2e-5, 0])


def test_it_is_saved_and_restored():
    schedule = replace(linear(5).own_part(1), restart_lr=4e-5).restarted(1)
    assert schedule_from_dict(schedule_to_dict(schedule)) == schedule


def test_its_warm_up_is_of_no_other_schedule():
    with pytest.raises(
        CuttlefishError, match="warmup_fraction is of name=linear; cosine takes warmup_epochs"
    ):
        ScheduleConfig(name="cosine", warmup_fraction=0.1).check("recipe.schedule")
    with pytest.raises(CuttlefishError, match="both set the warm-up"):
        ScheduleConfig(name="linear", warmup_fraction=0.1, warmup_epochs=1).check("recipe.schedule")


def test_a_warm_up_in_steps_is_one_of_the_run_s_steps(tmp_path, monkeypatch):
    rates, step = [], StepRunner.step
    monkeypatch.setattr(
        StepRunner, "step", lambda runner, *given: (rates.append(runner.lr), step(runner, *given))[1]
    )
    schedule = {"name": "linear", "base_lr": 1e-9, "peak_lr": 0.01, "warmup_steps": 3}
    settings = {"recipe__schedule": schedule, "recipe__epochs": 2, "method__switch_epoch": 1}
    run_config(little_config(tmp_path / "run", "cuttlefish", **settings))
    line = [0.01 * min(step / 3, (8 - step) / 5) for step in range(8)]
    risen = [0.01] * 4 + [0.01 * (step - 4) / 3 for step in range(4, 8)]
    assert rates == pytest.approx([min(pair) for pair in zip(line, risen, strict=True)], abs=1e-8)
    schedule["warmup_steps"] = 9
    with pytest.raises(CuttlefishError, match="warmup_steps=9 does not fit into the run's 8 steps"):
        run_config(little_config(tmp_path / "other", "cuttlefish", **settings))
