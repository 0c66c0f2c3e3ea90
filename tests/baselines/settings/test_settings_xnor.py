"""What XNOR-Net passes from its settings to its units, and the latent weights that the first step finds."""

import pytest
import torch

from baselines.xnor.binary import BinaryConv2d
from cuttlefish.engine.run import resolve_run
from cuttlefish.engine.session import Session
from tests.helpers.runs import little_config


def session(folder, **overrides) -> Session:
    return Session(resolve_run(little_config(folder, "xnor", **overrides)))


def units_of(model) -> list[BinaryConv2d]:
    return [module for module in model.modules() if isinstance(module, BinaryConv2d)]


def test_latent_weights_are_centred_before_the_first_step(tmp_path):
    run = session(tmp_path)
    model = run.context.model
    with torch.no_grad():
        model.layer1[0].conv1.weight[0, 0] = 5.0
    before = {
        name: weight.detach().clone()
        for name, weight in model.named_parameters()
        if weight.ndim == 4 and name != "conv1.weight"
    }
    run.method.on_fit_start(run.context)
    for name, weight in before.items():
        unit = model.get_submodule(name.removesuffix(".weight"))
        expected = (weight - weight.mean(1, keepdim=True)).clamp(-1, 1) if unit.binary else weight
        torch.testing.assert_close(unit.conv.weight, torch.nn.Parameter(expected))
        assert torch.equal(unit.conv.weight, weight) != unit.binary
    assert model.layer1[0].conv1.conv.weight.max() == 1


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("act_scale", [False, True])
def test_units_are_as_set_also_when_a_run_goes_on(tmp_path, last, act_scale, resumed):
    run = session(tmp_path, method__binarize_last_conv=last, method__act_scale=act_scale)
    if resumed:
        run.method.load_state_dict(run.context, run.method.state_dict())
    else:
        run.method.on_fit_start(run.context)
    units = units_of(run.context.model)
    assert [unit.binary for unit in units].count(False) == (0 if last else 1)
    assert run.context.model.layer4[1].conv2.binary is last
    assert {unit.act_scale for unit in units} == {act_scale}
    assert run.method.on_fit_end(run.context)["binary_layers"] == len(units) - (not last)
