"""What IMP passes from its settings to the masks and to the schedules of its levels."""

import pytest

from baselines.imp.levels import ladder
from cuttlefish.engine.run import resolve_run
from cuttlefish.engine.session import Session
from cuttlefish.methods.masks import prunable
from tests.helpers.runs import little_config

IGNORED = ["layer3.0.conv1", "fc"]
LONG = {"recipe__epochs": 8, "recipe__schedule__warmup_epochs": 4, "method__rewind_epoch": None}


def session(folder, **overrides) -> Session:
    return Session(resolve_run(little_config(folder, "imp", **overrides)))


@pytest.mark.parametrize("ignore", [[], IGNORED])
@pytest.mark.parametrize("mode", ["exact_k", "openlth"])
def test_levels_keep_what_the_mode_says_and_ignored_layers(tmp_path, mode, ignore):
    run = session(tmp_path, method__mode=mode, method__ignore=ignore, method__fraction=0.3)
    method, context = run.method, run.context
    method.on_fit_start(context)
    for phase in method.phases(context):
        if phase.enter is not None:
            phase.enter(context)
    sizes = {name.removesuffix(".weight"): weight.numel() for name, weight in prunable(context.model).items()}
    spared = sum(sizes[name] for name in ignore)
    rungs = ladder(sum(sizes.values()) - spared, spared, 0.3, mode)[:3]
    assert method.on_fit_end(context)["kept"] == [rung + spared for rung in rungs]
    assert [name for name in IGNORED if method.masks[f"{name}.weight"].all()] == ignore


def test_a_level_of_half_the_length_has_half_the_warm_up(tmp_path):
    run = session(tmp_path, method__level_epochs=4, **LONG)
    phases = list(run.method.phases(run.context))
    assert [(phase.name, phase.epochs) for phase in phases] == [("pretrain", range(3))] + [
        (f"level {i}", range(3, 4)) for i in range(3)
    ]
    for phase in phases:
        assert (phase.schedule.warmup_epochs, phase.schedule.milestones) == (2, (2, 3))
        assert phase.schedule.lr(0) == pytest.approx(0.01) and phase.schedule.lr(1) == pytest.approx(0.03)


def test_levels_of_a_shared_budget_share_the_warm_up(tmp_path):
    run = session(tmp_path, method__level_epochs=None, method__equal_budget=True, **LONG)
    phases = list(run.method.phases(run.context))
    assert [phase.epochs for phase in phases] == [range(3), range(3, 4), range(3, 4), range(3, 6)], (
        "eight in all"
    )
    assert [phase.schedule.warmup_epochs for phase in phases] == [2, 2, 2, 3]
