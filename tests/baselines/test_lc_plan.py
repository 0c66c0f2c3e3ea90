"""LC's phases: how a budget of epochs is shared out, the published recipes, and knobs that are refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.lc.plan import make_plan, mu_schedule
from baselines.lc.settings import Settings
from cuttlefish.config.recipe import OptimizerConfig, RecipeConfig, ScheduleConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.methods.schedule import Exponential, Milestones
from tests.helpers.runs import composed_settings


@settings(deadline=None, max_examples=30)
@given(st.integers(6, 400), st.integers(2, 60))
def test_by_default_all_phases_add_up_to_the_recipe_s_epochs(epochs, steps):
    plan = make_plan(Settings(steps=steps), RecipeConfig(epochs=epochs))
    assert plan.recipe.epochs + sum(plan.l_steps) + plan.finetune == epochs
    assert min(plan.l_steps) >= 1 and max(plan.l_steps) - min(plan.l_steps) <= 1
    assert len(plan.mus) == len(plan.l_steps) + 1 <= steps
    assert plan.mus[0] == pytest.approx(0.1) and plan.mus[-1] == pytest.approx(10)


def test_a_budget_without_room_for_l_steps_is_refused():
    with pytest.raises(CuttlefishError, match="leave none of the recipe's 2"):
        make_plan(Settings(), RecipeConfig(epochs=2))
    with pytest.raises(CuttlefishError, match="9 epochs are left for 29 L steps"):
        make_plan(Settings(mu_inc=1.2), RecipeConfig(epochs=30))


BAD = [
    {"mu0": 0.0},
    {"steps": 1},
    {"mu_inc": 0.9},
    {"alpha": -1.0},
    {"ft_share": 0.6},
    {"scheme": "x"},
    {"mu_rep": 0},
    {"mu_last": 0.01},
]


@pytest.mark.parametrize("knobs", BAD)
def test_knobs_out_of_range_are_refused(knobs):
    with pytest.raises(CuttlefishError):
        Settings(**knobs).check()


def published(model: str) -> Settings:
    return composed_settings("lc", "preset=reference", f"model={model}")


def test_the_published_recipes_are_the_audit_s():
    resnet, vgg = (make_plan(published(model), RecipeConfig()) for model in ("resnet18", "vgg19"))
    assert resnet.recipe.epochs + sum(resnet.l_steps) + resnet.finetune == 200 + 735 + 200
    assert vgg.recipe.epochs + sum(vgg.l_steps) + vgg.finetune == 300 + 885 + 300
    assert resnet.mus[-1] == pytest.approx(56.05, abs=0.01) and vgg.mus[-1] == pytest.approx(0.939, abs=1e-3)
    assert [resnet.reference_schedule().lr(epoch) for epoch in (0, 99, 100, 150)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.001]
    )
    assert [vgg.reference_schedule().lr(epoch) for epoch in (0, 1)] == pytest.approx([0.05, 0.05 * 0.97716])
    assert [list(plan.l_schedules())[-1] for plan in (resnet, vgg)] == [Exponential(7e-4, 0.99)] * 2
    assert (resnet.ft_schedule(), vgg.ft_schedule()) == (Exponential(1e-4, 0.99), Exponential(7e-4, 0.99))
    assert (resnet.sgd.weight_decay, vgg.sgd.weight_decay) == (2e-4, 1e-3)
    assert resnet.sgd.nesterov and resnet.recipe.optimizer == OptimizerConfig(
        nesterov=True, weight_decay=2e-4
    )


def test_learning_rates_follow_the_recipe_s_peak():
    recipe = RecipeConfig(epochs=30, schedule=ScheduleConfig(base_lr=0.03, peak_lr=0.1, warmup_epochs=2))
    plan = make_plan(Settings(), recipe)
    assert isinstance(plan.reference_schedule(), Milestones) and plan.reference_schedule().milestones == (
        7,
        11,
    )
    assert next(plan.l_schedules()).initial_lr == pytest.approx(7e-4)
    assert plan.ft_schedule().lr(0) == pytest.approx(0.01) and plan.ft_schedule().lr(
        plan.finetune
    ) == pytest.approx(0.0005)
    later = list(make_plan(Settings(l_lr=1.0, l_decay=0.5, l_decay_per="step"), recipe).l_schedules())
    assert [schedule.lr(3) for schedule in later[:3]] == [0.5, 0.25, 0.125]


def test_mu_grows_geometrically_from_a_step_without_l_step():
    assert mu_schedule(1.0, 2.0, 3, 2) == [1, 1, 2, 2, 4, 4]
    plan = make_plan(
        Settings(steps=4, mu_rep=2, epochs_per_l=3, mu0=1.0, mu_inc=2.0), RecipeConfig(epochs=10)
    )
    assert len(plan.mus) == 8 and plan.l_steps == [3] * 7
