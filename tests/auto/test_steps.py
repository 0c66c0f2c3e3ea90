"""A loop by steps, reports, restarts and the interface around them."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD

import cuttlefish
from cuttlefish import Cuttlefish, CuttlefishError
from tests.helpers.little_networks import IMAGES, LAYERS, network, step

FIXED = {"k": 1, "switch_epoch": 2, "rank_ratio": 0.25}


def test_intervals_of_steps_are_epochs():
    model = network()
    cf = Cuttlefish(model, IMAGES, interval=3, epochs=4, **FIXED)
    assert [index for index in range(1, 13) if cf.step_end()] == [6]
    assert cf.switch_epoch == 2 and len(cf.tracker.history["3"]) == 3
    assert not any(cf.step_end() for _ in range(6)), "a run may go on after its end, with nothing to decide"


def test_one_of_both_ways_to_count():
    with pytest.raises(CuttlefishError, match="call step_end"):
        Cuttlefish(network(), IMAGES, interval=3, **FIXED).epoch_end()
    with pytest.raises(CuttlefishError, match="give interval="):
        Cuttlefish(network(), IMAGES, **FIXED).step_end()
    for length in ({"interval": -1}, {"interval": 0}, {"epochs": 0}):
        with pytest.raises(CuttlefishError, match="must be a whole number of at least 1"):
            Cuttlefish(network(), IMAGES, **length, **FIXED)
    with pytest.raises(CuttlefishError, match="state is of type list"):
        Cuttlefish(network(), IMAGES, state=[], **FIXED)
    with pytest.raises(CuttlefishError, match="no batch was given"):
        Cuttlefish(network(), **FIXED)


def test_the_report_says_what_has_happened():
    model = network()
    before = sum(parameter.numel() for parameter in model.parameters())
    cf = Cuttlefish(model, IMAGES, **FIXED)
    assert not cf.epoch_end()
    report = cf.epoch_end()
    assert report and report.epoch == 2 and report.reason == "fixed" and report.ranks == {"3": 6, "6": 6}
    assert report.parameters_before == before
    assert report.parameters_after == sum(parameter.numel() for parameter in model.parameters()) < before
    assert report.refused["0"] == "it is among the leading dense layers (K = 1)" and 0 < report.difference < 2
    assert "2 layers" in str(report) and "3: rank 6" in str(report)
    assert str(cf.epoch_end()) == "no switch here, after 2 dense epochs (fixed)"


def test_at_full_rank_the_outputs_do_not_change():
    cf = Cuttlefish(network(), IMAGES, k=1, switch_epoch=0, rank_ratio=1.0, keep_dense=False)
    assert cf.epoch_end().difference is None and cf.switched
    cf = Cuttlefish(network(), IMAGES, k=1, switch_epoch=1, rank_ratio=1.0, keep_dense=False)
    assert cf.epoch_end().difference < 1e-5


@pytest.mark.parametrize("steps", [2, 4, 7, 13])
def test_a_restart_needs_the_model_and_the_state_only(steps):
    def optimizer_of(groups):
        return SGD(groups, lr=0.05, momentum=0.9)

    def go_on(cf, optimizer, count):
        for _ in range(count):
            step(cf.model, optimizer, cf)
            if cf.step_end():
                cf.optimizer(optimizer)

    cf = Cuttlefish(network(), IMAGES, interval=3, epochs=10, frobenius_decay=1e-3, **FIXED)
    optimizer = optimizer_of(cf.param_groups(0.1))
    go_on(cf, optimizer, steps)
    saved = copy.deepcopy((cf.state_dict(), cf.model.state_dict(), optimizer.state_dict()))
    again = Cuttlefish.resume(network, saved[0])
    again.model.load_state_dict(saved[1])
    optimizer_again = optimizer_of(again.param_groups(0.1))
    optimizer_again.load_state_dict(saved[2])
    go_on(again, optimizer_again, 15 - steps)
    go_on(cf, optimizer, 15 - steps)
    assert cf.state_dict() == again.state_dict() and cf.switched
    torch.testing.assert_close(cf.model.state_dict(), again.model.state_dict(), rtol=0, atol=0)


def test_the_table_and_the_plot():
    import matplotlib

    matplotlib.use("agg")
    cf = Cuttlefish(network(), IMAGES, **FIXED)
    assert "full rank after 0 epochs, ranks still watched; K = 1" in cf.report()
    cf.epoch_end(), cf.epoch_end()
    lines = cf.report().splitlines()
    assert lines[0] == "low-rank since epoch 2 (fixed); K = 1"
    assert [line for line in lines if line.startswith("3 ") and line.endswith("rank 6")]
    assert [line for line in lines if line.startswith("0 ") and "leading dense layers" in line]
    assert len(cf.plot().lines) == len(LAYERS) + 1


class Unlike(nn.Module):
    """Draws random numbers in eval mode, too."""

    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, x):
        return self.body(x + torch.rand(()))


def test_the_comparison_draws_no_random_numbers():
    cf = Cuttlefish(Unlike(), IMAGES, **FIXED)
    state = torch.get_rng_state()
    assert not cf.epoch_end() and cf.epoch_end() and torch.equal(torch.get_rng_state(), state)


def test_public_names_of_the_loop():
    assert cuttlefish.EpochReport is type(Cuttlefish(network(), IMAGES, **FIXED).epoch_end())


@pytest.mark.parametrize("knobs", [{}, {"extra_bn": True}, {"scheme": "spatial"}])
@pytest.mark.parametrize("share", [0.3, 0.6, 2.0])
def test_a_budget_is_kept(share, knobs):
    model = network()
    target = int(share * sum(parameter.numel() for parameter in model.parameters()))
    cf = Cuttlefish(model, IMAGES, k=1, switch_epoch=1, rank_ratio=0.45, target_params=target, **knobs)
    assert cf.epoch_end().parameters_after <= target
    assert share < 2 or cf.ranks["3"] == (21 if knobs.get("scheme") else 10), "what fits is left as it is"


def test_a_budget_that_cannot_be_kept_is_refused_at_once():
    with pytest.raises(
        CuttlefishError, match="target_params=99 cannot be reached: with rank 1 in all 2 layers"
    ):
        Cuttlefish(network(), IMAGES, target_params=99, **FIXED)


class LanguageModel(nn.Module):
    """Token embeddings tied to the head, blocks of linear layers, a loss of its own: as nanoGPT's."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 32)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"up": nn.Linear(32, 64), "down": nn.Linear(64, 32)}) for _ in range(2)
        )
        self.head = nn.Linear(32, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens, targets):
        x = self.embed(tokens)
        for block in self.blocks:
            x = x + block["down"](block["up"](x).relu())
        logits = self.head(x)
        return logits, nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def test_a_script_of_iterations_with_tied_embeddings():
    torch.manual_seed(0)
    model, tokens = LanguageModel(), torch.randint(20, (4, 9))
    batch = tokens[:, :-1], tokens[:, 1:]
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    rest = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    cf = Cuttlefish(model, batch, interval=5, epochs=4, optimizer=optimizer, switch_epoch=2, rank_ratio=0.25)
    losses = []
    for _ in range(20):
        _, loss = model(*batch)
        loss.backward()
        cf.before_step()
        optimizer.step()
        optimizer.zero_grad()
        cf.step_end()
        losses.append(loss.item())
    assert sorted(cf.final_ranks()) == ["blocks.0.down", "blocks.0.up", "blocks.1.down", "blocks.1.up"]
    assert model.head.weight is model.embed.weight and losses[-1] < losses[9] < losses[0]
