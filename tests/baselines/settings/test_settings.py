"""What baselines with a recipe of their own make of it, and that their `decay_all` reaches the optimizer's
groups."""

from dataclasses import replace

import pytest

from cuttlefish.engine.run import resolve_run
from cuttlefish.engine.session import Session
from cuttlefish.lowrank.decay import decay_groups
from cuttlefish.methods.schedule import build_schedule
from tests.helpers.runs import little_config

OWN = {
    "epochs": 8,
    "optimizer": {"momentum": 0.5, "weight_decay": 0.3},
    "schedule": {"peak_lr": 0.7, "warmup_epochs": 2},
}
KNOBS = {"grasp": {}, "imp": {"method__level_epochs": None, "method__rewind_epoch": 3}, "eb": {}}


def session(folder, method: str, **overrides) -> Session:
    return Session(resolve_run(little_config(folder, method, **KNOBS[method], **overrides)))


def phases_of(run: Session):
    if run.config.method["name"] == "eb":
        run.method.ticket = {"epoch": 3}  # drawn while the search trains
    return list(run.method.phases(run.context))


@pytest.mark.parametrize(
    ("method", "epochs"),
    [
        ("grasp", {"train": range(8)}),
        (
            "imp",
            {"pretrain": range(3), "level 0": range(3, 8), "level 1": range(3, 8), "level 2": range(3, 8)},
        ),
        ("eb", {"search": range(8), "retrain": range(3, 8)}),
    ],
)
def test_every_phase_follows_the_method_s_own_recipe(tmp_path, method, epochs):
    run = session(tmp_path, method, method__recipe=OWN)
    given, phases = run.context.recipe, phases_of(run)
    assert {phase.name: phase.epochs for phase in phases} == epochs
    schedule = build_schedule(replace(given.schedule, peak_lr=0.7, warmup_epochs=2), 8)
    for phase in phases:
        assert phase.optimizer == replace(given.optimizer, momentum=0.5, weight_decay=0.3)
        assert phase.schedule == schedule


@pytest.mark.parametrize("method", KNOBS)
def test_without_one_every_phase_follows_the_run_s(tmp_path, method):
    run = session(tmp_path, method, recipe__optimizer={"momentum": 0.6})
    for phase in phases_of(run):
        assert phase.optimizer == run.context.recipe.optimizer and phase.schedule == run.context.schedule
        assert phase.optimizer.momentum == 0.6
    assert phase.epochs.stop == run.context.recipe.epochs


@pytest.mark.parametrize("method", KNOBS)
def test_norms_and_biases_decay_only_where_asked(tmp_path, method):
    model = session(tmp_path, method).context.model
    for wanted in (False, True):
        groups = session(tmp_path, method, method__decay_all=wanted).method.param_groups(model, 0.3)
        decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
        assert decay == {
            id(parameter): 0.3 if wanted or parameter.ndim >= 2 else 0.0 for parameter in model.parameters()
        }
    assert len(decay_groups(model, 0.3)) == 2, "this model has some of both"
