"""Frobenius decay of the trainer's methods: a gradient under SGD, decoupled under AdamW."""

import pytest
from torch.optim import SGD, AdamW

from cuttlefish.lowrank.decay import FrobeniusDecay
from cuttlefish.worker import run_config
from tests.helpers.runs import little_config

METHODS = {"cuttlefish": {"method__switch_epoch": 1}, "si_fd": {"method__frobenius_decay": 1e-3}}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_methods_know_their_optimizer(method, optimizer, tmp_path, monkeypatch):
    seen = []
    whole = FrobeniusDecay.add_gradients

    def add_gradients(self):
        before = [factor.detach().clone() for factor in self.parameters()]
        whole(self)
        moved = any(not factor.equal(old) for factor, old in zip(self.parameters(), before, strict=True))
        seen.append((moved, [type(known) for known in self._optimizers]))

    monkeypatch.setattr(FrobeniusDecay, "add_gradients", add_gradients)
    options = {"recipe__epochs": 2, "recipe__optimizer__name": optimizer, "recipe__schedule__peak_lr": 0.01}
    run_config(little_config(tmp_path, method, **options, **METHODS[method]))
    decoupled, kind = (True, AdamW) if optimizer == "adamw" else (False, SGD)
    assert seen and all(kinds == [kind] for _, kinds in seen)
    assert any(moved for moved, _ in seen) is decoupled
