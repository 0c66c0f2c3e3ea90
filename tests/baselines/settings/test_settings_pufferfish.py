"""What Pufferfish passes from its settings to Cuttlefish's switch."""

import pytest

from cuttlefish.engine.run import resolve_run
from cuttlefish.engine.session import Session
from cuttlefish.lowrank.surgery import low_rank_layers
from tests.helpers.runs import little_config


def switched(folder, **overrides):
    """The network behind the switch at epoch 2, and the schedule from there on (`declined` without a
    switch)."""
    run = Session(resolve_run(little_config(folder, "pufferfish", **overrides)))
    run.method.on_fit_start(run.context)
    before = [run.method.on_epoch_start(run.context, epoch) for epoch in range(2)]
    assert before == [None, None]
    transition = run.method.on_epoch_start(run.context, 2)
    return run.context, run.method.core.reason if transition is None else transition.schedule


def test_the_warm_up_is_repeated_unless_switched_off(tmp_path):
    context, again = switched(tmp_path)
    assert again == context.schedule.restarted(2)
    assert switched(tmp_path, method__rewarm=False)[1] is None


def test_the_reference_s_overshoot_is_passed_on(tmp_path):
    context, schedule = switched(tmp_path, method__overshoot=True)
    assert schedule == context.schedule.restarted(2, overshoot=True)
    assert schedule.lr(2) == context.recipe.schedule.base_lr > context.schedule.restarted(2).lr(2), (
        "undamped, though a milestone lies behind"
    )


@pytest.mark.parametrize(("keep_dense", "layers"), [(True, 0), (False, 14)])
def test_full_rank_layers_are_factorized_without_keep_dense(tmp_path, keep_dense, layers):
    context, then = switched(tmp_path, method__keep_dense=keep_dense, method__rank_ratio=1.0)
    assert len(low_rank_layers(context.model)) == layers and (then == "declined") is keep_dense
