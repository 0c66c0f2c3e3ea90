"""What EB passes from its settings to the masks, when they have settled, the scales γ and the L1 on all of
them."""

import pytest
import torch
from torch import nn

from cuttlefish.engine.run import resolve_run
from cuttlefish.engine.session import Session
from tests.helpers.runs import little_config

BESIDE = {"bn1", "layer1.0.bn2", "layer2.0.shortcut.1"}
"""Norms whose channels cannot be pruned: the stem's, a block's last one, a shortcut's."""


def session(folder, **overrides) -> Session:
    """After `on_fit_start`, with scales that all differ, some of them negative."""
    run = Session(resolve_run(little_config(folder, "eb", recipe__epochs=6, **overrides)))
    run.method.on_fit_start(run.context)
    return run


def norms(model) -> dict[str, nn.BatchNorm2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}


@torch.no_grad()
def vary(model) -> None:
    generator = torch.Generator().manual_seed(0)
    for norm in norms(model).values():
        norm.weight.copy_(torch.randn(norm.weight.shape, generator=generator))


def search(run: Session) -> dict:
    """The ticket of a search in which no scale moves."""
    for epoch in range(6):
        run.method.on_epoch_start(run.context, epoch)
    return run.method.ticket


@pytest.mark.parametrize(("distance", "epoch"), [("newest_vs_queue", 3), ("consecutive", 4)])
def test_the_paper_s_distances_take_one_mask_more(tmp_path, distance, epoch):
    run = session(tmp_path, method__distance=distance, method__fifo=3)
    assert search(run)["epoch"] == epoch


@pytest.mark.parametrize(
    "sized", [{"method__p": 0.5}, {"method__p_grid": [0.5], "method__target_params": 80_000}]
)
@pytest.mark.parametrize(("threshold", "kept"), [("exact", 120), ("original", 119)])
def test_the_original_s_threshold_drops_one_more(tmp_path, threshold, kept, sized):
    run = session(tmp_path, method__threshold=threshold, **sized)
    vary(run.context.model)
    assert sum(chain.channels for chain in run.method.chains) == 240 and sum(search(run)["kept"]) == kept


@pytest.mark.parametrize(("given", "expected"), [(0.25, 0.25), (None, 1.0)])
def test_every_scale_starts_at_gamma_init(tmp_path, given, expected):
    model = session(tmp_path, method__gamma_init=given).context.model
    assert norms(model).keys() > BESIDE
    assert all((norm.weight == expected).all() and not norm.bias.any() for norm in norms(model).values())


def check_l1(run: Session, s: float) -> None:
    model = run.context.model
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    run.method.on_gradients(model)
    scales = {f"{name}.weight" for name in norms(model)}
    assert scales > {f"{name}.weight" for name in BESIDE}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad,
            1 + s * parameter.detach().sign() if name in scales else torch.ones_like(parameter),
        )


def test_the_l1_is_on_every_scale_before_and_after_slimming(tmp_path):
    run = session(tmp_path, method__s=0.125)
    vary(run.context.model)
    check_l1(run, 0.125)
    search(run)
    run.method._enter(run.context)
    assert norms(run.context.model)["layer1.0.bn1"].num_features < 8
    check_l1(run, 0.125)


def test_fresh_weights_are_drawn_from_the_run_s_seed(tmp_path):
    drawn = []
    for seed in (0, 1, 1):
        run = session(tmp_path, seed=seed, method__inherit_weights=False)
        search(run)
        run.method._enter(run.context)
        drawn.append(
            {
                name: tensor
                for name, tensor in run.context.model.state_dict().items()
                if name in ("conv1.weight", "fc.weight")
            }
        )
    first, second, again = drawn
    assert all(
        torch.equal(second[name], again[name]) and not torch.equal(first[name], second[name])
        for name in first
    )
