"""At the switch nothing of the dense network's training stays alive."""

import gc
import weakref

from cuttlefish.engine import step as step_module
from cuttlefish.worker import run_config
from tests.helpers.runs import little_config


def test_dense_optimizer_and_weights_are_gone_after_the_switch(tmp_path, monkeypatch):
    alive = []
    build, step = step_module.build_optimizer, step_module.StepRunner.step

    def watching_build(config, groups, lr):
        alive.append(
            (
                weakref.ref(optimizer := build(config, groups, lr)),
                {p.shape: weakref.ref(p) for g in groups for p in g["params"]},
            )
        )
        return optimizer

    def watching_step(self, *arguments, **keywords):
        if len(alive) == 2:
            gc.collect()
            optimizer, weights = alive[0]
            now = {id(parameter) for parameter in self.model.parameters()}
            assert optimizer() is None, "the old optimizer holds a momentum for every old weight"
            assert all(ref() is None or id(ref()) in now for ref in weights.values()), (
                "dense weights outlive the switch"
            )
        return step(self, *arguments, **keywords)

    monkeypatch.setattr(step_module, "build_optimizer", watching_build)
    monkeypatch.setattr(step_module.StepRunner, "step", watching_step)
    gc.disable()  # as run.py does
    run_config(little_config(tmp_path, "cuttlefish"))
    assert gc.isenabled()
    assert len(alive) == 2
