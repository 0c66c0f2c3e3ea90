"""Every method trains compiled: captured whole in the fast tests, by the real code generator in the slow
ones."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn

from baselines.xnor.binary import BinaryConv2d
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
    # XNOR's activations are few integers: where a channel's mean is one of them, rounding decides the sign, and
    # that comes up in the wider network
    more = {"trainer__precision": precision} | ({"model__width": 4} if method == "xnor" else {})
    fast = run(tmp_path / "compiled", method, trainer__compile=True, **more)
    eager = run(tmp_path / "eager", method, **more)
    assert fast.loss_final == pytest.approx(eager.loss_final, rel=1e-3 if precision == "fp32" else 0.1)
    assert torch.isfinite(torch.tensor(fast.loss_final))
    # other roundings may draw other channels or ranks, and those weigh differently
    assert fast.params_total == pytest.approx(eager.params_total, rel=0 if precision == "fp32" else 0.05)


@pytest.mark.slow
def test_generated_code_of_binary_convolutions_is_exact(generated):
    """Forward and backward, of inputs whose signs no rounding decides."""
    torch.manual_seed(0)
    units = [BinaryConv2d(nn.Conv2d(8, 8, 3, padding=1, bias=False)) for _ in range(2)]
    eager = nn.Sequential(*units).double()
    compiled = deepcopy(eager)
    compiled.compile()
    images = torch.randn(16, 8, 12, 12, dtype=torch.float64)
    towards = torch.randn_like(images)
    results = []
    for model in (eager, compiled):
        inputs = images.clone().requires_grad_()
        outputs = model(inputs)
        outputs.backward(towards)
        results.append([outputs, inputs.grad, *(parameter.grad for parameter in model.parameters())])
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-9)
