"""What LC passes from its settings to the C step, and the optimizer of each of its phases."""

import pytest

from baselines.lc import c_step
from cuttlefish.config.recipe import OptimizerConfig
from cuttlefish.engine.run import resolve_run
from cuttlefish.engine.session import Session
from cuttlefish.lowrank.matrix import unroll
from tests.helpers.runs import little_config


def compressed(folder, **overrides):
    """A method after its first C step, and the spectra that it saw."""
    run = Session(resolve_run(little_config(folder, "lc", **overrides)))
    method, context = run.method, run.context
    method.on_fit_start(context)
    spectra = {
        name: c_step.spectrum(unroll(context.model.get_submodule(name).weight)) for name in method.layers
    }
    method.compress(context)
    return method, spectra


@pytest.mark.parametrize("normalize", [True, False])
def test_ranks_are_learned_with_or_without_normalizing_as_set(tmp_path, normalize):
    method, spectra = compressed(tmp_path, method__normalize=normalize, method__alpha=5e-4)
    expected = {}
    for choice in (True, False):
        price = {name: method.alpha * layer.unit for name, layer in method.layers.items()}
        expected[choice] = {
            name: [c_step.learned_rank(found, mu=method.plan.mus[0], price=price[name], normalize=choice)]
            for name, found in spectra.items()
        }
    assert method.path == expected[normalize] != expected[not normalize]


@pytest.mark.parametrize("normalize", [True, False])
def test_alpha_for_a_size_is_found_with_or_without_normalizing(tmp_path, normalize):
    method, spectra = compressed(
        tmp_path, method__normalize=normalize, method__target_params=20_000, method__alpha=2e-6
    )
    final = {"mu": method.plan.mus[-1]}
    found = {
        choice: c_step.alpha_for(20_000, method.dense, method.layers, spectra, normalize=choice, **final)
        for choice in (True, False)
    }
    assert method.alpha == found[normalize] != found[not normalize]


def test_all_but_the_reference_is_trained_with_nesterov(tmp_path):
    own = {"epochs": 1, "optimizer": {"name": "adamw", "momentum": 0.5, "weight_decay": 3e-4}}
    run = Session(resolve_run(little_config(tmp_path, "lc", method__recipe=own)))
    optimizers = {phase.name: phase.optimizer for phase in run.method.phases(run.context)}
    assert optimizers.pop("reference") == OptimizerConfig("adamw", momentum=0.5, weight_decay=3e-4)
    assert optimizers == dict.fromkeys(
        ("L1", "L2", "finetune"), OptimizerConfig("sgd", momentum=0.9, nesterov=True, weight_decay=3e-4)
    )
