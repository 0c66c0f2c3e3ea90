"""Every method trains compiled: captured whole in the fast tests, by the real code generator in the slow
ones."""

from functools import partial

import pytest
import torch
from torch import nn

from cuttlefish.worker import run_config
from tests.helpers.runs import METHODS, little_config


def run(folder, method, **more):
    # one shape and few layers: a graph is captured anew at every phase and switch
    return run_config(
        little_config(
            folder, method, recipe__epochs=3, data__train_images=32, trainer__deterministic=False, **more
        )
    )


CASES = [*((method, "fp32", 1e-3) for method in METHODS), ("cuttlefish", "bf16", 0.1), ("xnor", "bf16", 0.1)]
"""bf16 for the method that changes its layers within the run, and for the one whose layers' forward is its
own."""


@pytest.mark.parametrize(("method", "precision", "tolerance"), CASES)
def test_the_compiled_run_is_the_eager_one(tmp_path, monkeypatch, method, precision, tolerance):
    """`fullgraph` refuses any layer of a method's own that falls back to Python."""
    compiled = []
    captured = partial(nn.Module.compile, backend="aot_eager", fullgraph=True)
    monkeypatch.setattr(
        nn.Module, "compile", lambda model, **options: (compiled.append(model), captured(model, **options))[1]
    )
    fast = run(tmp_path / "compiled", method, trainer__compile=True, trainer__precision=precision)
    assert compiled and fast.precision == precision
    eager = run(tmp_path / "eager", method, trainer__precision=precision)
    assert fast.loss_final == pytest.approx(eager.loss_final, rel=tolerance)
    for field in ("ranks", "switch_epoch", "params_total", "epochs_trained"):
        assert getattr(fast, field) == getattr(eager, field), field
    assert fast.seconds["compile"] > 0


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """One folder for all generated code: most methods begin with the same dense network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("generated")))
        yield


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_with_generated_code(tmp_path, generated, method, precision):
    fast = run(tmp_path / "compiled", method, trainer__compile=True, trainer__precision=precision)
    eager = run(tmp_path / "eager", method, trainer__precision=precision)
    assert fast.loss_final == pytest.approx(eager.loss_final, rel=1e-3 if precision == "fp32" else 0.1)
    assert torch.isfinite(torch.tensor(fast.loss_final))
    # other roundings may draw other channels or ranks, and those weigh differently
    assert fast.params_total == pytest.approx(eager.params_total, rel=0 if precision == "fp32" else 0.05)
