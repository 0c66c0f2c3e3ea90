"""Cuttlefish in a plain loop: when it switches, to what, and what each knob changes."""

import math

import pytest
import torch
from torch import nn

import cuttlefish
from cuttlefish import Cuttlefish, CuttlefishError, LowRankConv2d


def network():
    torch.manual_seed(0)
    widths = [3, 16, 32, 32, 32]
    layers = []
    for index, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride=1 + index % 2, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
LAYERS = ["3", "6", "9"]


def shrink(model, names=LAYERS, rank=4):
    """Make the layers nearly rank `rank`, as training would."""
    with torch.no_grad():
        for name in names:
            weight = model.get_submodule(name).weight
            left, sigma, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
            sigma[rank:] *= 1e-3
            weight.copy_(((left * sigma) @ right).view_as(weight))


def test_switches_once_after_the_ranks_settle():
    model = network()
    cf = Cuttlefish(model, IMAGES, epochs=30, k=1)
    shrink(model)
    switched = [cf.epoch_end() for _ in range(8)]
    # Update 0 saw the initial weights, updates 1 … the shrunken ones. With a window of 3 the central differences at
    # updates 0, 1 still see the jump; updates 2, 3, 4 do not, so update 4 decides, epoch 4 is dense and E = 5.
    assert switched == [False] * 4 + [True] + [False] * 3
    assert cf.switch_epoch == 5 and cf.reason == "settled" and cf.layers == LAYERS
    assert all(isinstance(model.get_submodule(name), LowRankConv2d) for name in LAYERS)
    assert isinstance(model[0], nn.Conv2d) and isinstance(model[-1], nn.Linear)


def test_ranks_are_those_of_the_weights_at_the_switch():
    model = network()
    cf = Cuttlefish(model, IMAGES, k=1, switch_epoch=2, keep_dense=False)
    initial = {name: values[0] for name, values in cf.tracker.history.items()}
    cf.epoch_end()
    shrink(model)
    expected = {name: cuttlefish.stable_rank(model.get_submodule(name).weight) for name in LAYERS}
    full = {name: cuttlefish.full_rank(model.get_submodule(name).weight) for name in LAYERS}
    assert cf.epoch_end() and cf.reason == "fixed"
    assert cf.ranks == {
        name: math.ceil(full[name] * expected[name] / initial[name] - 1e-6) for name in LAYERS
    }
    assert cf.final_ranks() == cf.ranks


def test_a_loop_can_say_which_epoch_has_ended():
    cf = Cuttlefish(network(), IMAGES, k=1, switch_epoch=5, rank_ratio=0.25)
    assert [epoch for epoch in (2, 3, 4, 5) if cf.epoch_end(epoch)] == [4] and cf.switch_epoch == 5


def test_output_is_nearly_kept_at_the_switch():
    model = network().eval()
    cf = Cuttlefish(model, IMAGES, k=1, switch_epoch=1, ranks=dict.fromkeys(LAYERS, 4))
    shrink(model)
    before = model(IMAGES)
    assert cf.epoch_end()
    assert torch.allclose(model(IMAGES), before, rtol=0.05, atol=0.02)


def test_reference_preset_lag_and_minimum():
    cf = Cuttlefish(network(), IMAGES, k=1, stability="reference")
    assert [cf.epoch_end() for _ in range(17)].index(True) == 15 and cf.switch_epoch == 16
    cf = Cuttlefish(network(), IMAGES, k=1, stability="reference-imagenet")
    assert [cf.epoch_end() for _ in range(8)].index(True) == 5 and cf.switch_epoch == 6
    assert len(cf.tracker.history["3"]) == 7, "one estimate an epoch and the initial one, none twice"


def test_unscaled_floor_round_and_ratio():
    def ranks(**knobs):
        cf = Cuttlefish(network(), IMAGES, k=1, switch_epoch=0, keep_dense=False, **knobs)
        return cf.ranks

    assert ranks() == dict.fromkeys(LAYERS, 32), "at initialisation the scaled rank is full rank"
    assert all(8 < rank < 32 for rank in ranks(metric="unscaled").values())
    assert ranks(rank_ratio=0.25) == dict.fromkeys(LAYERS, 8)
    assert ranks(rank_ratio=0.05, rank_floor=0.2) == dict.fromkeys(LAYERS, 6)
    assert ranks(rank_ratio=0.3, round_to=8) == dict.fromkeys(LAYERS, 16)
    assert ranks(ranks={"6": 5}) == {"6": 5}


def test_untracked_layers_are_factorized_but_not_waited_for():
    model = network()
    cf = Cuttlefish(
        model,
        IMAGES,
        k=1,
        stability="paper",
        untracked=["9"],
        frobenius_decay=1e-3,
        decay_untracked=False,
        keep_dense=False,
    )
    for epoch in range(2):
        with torch.no_grad():  # layer 9 keeps changing, the others do not
            model.get_submodule("9").weight[: 8 * (epoch + 1)] = 0
        if cf.epoch_end():
            break
    assert cf.switched and isinstance(model.get_submodule("9"), LowRankConv2d)
    exempt = cf.param_groups(0.1)[1]["params"]
    assert any(parameter is model.get_submodule("6").first.weight for parameter in exempt)
    assert not any(parameter is model.get_submodule("9").first.weight for parameter in exempt)


@pytest.mark.parametrize("knobs", [{}, {"frobenius_decay": 1e-4}, {"extra_bn": True}])
def test_every_parameter_is_in_exactly_one_group(knobs):
    model = network()
    cf = Cuttlefish(model, IMAGES, k=1, switch_epoch=1, rank_ratio=0.25, **knobs)
    for _ in range(2):
        groups = cf.param_groups(0.1)
        grouped = [id(parameter) for group in groups for parameter in group["params"]]
        assert sorted(grouped) == sorted(map(id, model.parameters()))
        assert all(parameter.ndim > 1 for parameter in groups[0]["params"])
        cf.epoch_end()


def test_frobenius_decay_starts_at_the_switch():
    model = network()
    cf = Cuttlefish(model, IMAGES, k=1, switch_epoch=1, rank_ratio=0.25, frobenius_decay=0.1)
    cf.before_step()
    assert all(parameter.grad is None for parameter in model.parameters())
    cf.epoch_end()
    cf.before_step()
    assert model.get_submodule("6").first.weight.grad.abs().sum() > 0 and model[0].weight.grad is None


def test_ranks_that_never_settle():
    def run(epochs=6, **knobs):
        model = network()
        cf = Cuttlefish(
            model,
            IMAGES,
            k=1,
            stability="paper",
            stability_options={"threshold": -1.0},
            epochs=epochs,
            **knobs,
        )
        return cf, [cf.epoch_end() for _ in range(epochs - 1)]

    cf, switched = run()
    assert not any(switched) and cf.reason is None
    cf, switched = run(max_epoch=3)
    assert not any(switched) and cf.reason == "never" and cf.epoch == 3
    cf, switched = run(max_epoch=3, on_never="switch_at")
    assert switched == [False, False, True, False, False] and cf.reason == "at the maximum E"
    with pytest.raises(CuttlefishError, match="not settled by epoch 5 .*3, 6, 9 still change"):
        run(on_never="error")


@pytest.mark.parametrize("epochs", range(7))
def test_state_goes_on_exactly(epochs):
    def start(state=None):
        return Cuttlefish(network(), IMAGES, epochs=30, k=1, frobenius_decay=1e-4, state=state)

    cf = start()
    shrink(cf.model)
    for _ in range(epochs):
        cf.epoch_end()
    again = start(cf.state_dict())
    again.model.load_state_dict(cf.model.state_dict())
    rest = [(one.epoch_end(), one.switch_epoch, one.reason) for one in (cf, again) for _ in range(8 - epochs)]
    assert rest[: 8 - epochs] == rest[8 - epochs :]
    assert cf.state_dict() == again.state_dict()
    assert cf.model.state_dict().keys() == again.model.state_dict().keys()
    assert (cf.decay is None) == (again.decay is None)


def test_declines_where_nothing_pays(monkeypatch):
    from cuttlefish.lowrank import timing

    monkeypatch.setattr(timing, "measure", lambda layer, given_as: (1.0, 1.0, 1.0, 1.0, 1.0, 1.0))
    model = network()
    cf = Cuttlefish(model, IMAGES, epochs=10)
    assert cf.reason == "declined" and not any(cf.epoch_end() for _ in range(9))
    assert not any(isinstance(module, LowRankConv2d) for module in model.modules())


def test_transformers_are_factorized_whole_and_unprofiled():
    import timm

    model = timm.create_model("vit_tiny_patch16_224", num_classes=10, depth=2, img_size=32)
    cf = Cuttlefish(model, torch.randn(2, 3, 32, 32), epochs=10)
    assert cf.profile is None and cf.k == 1
    assert cf.layers == [
        f"blocks.{i}.{name}" for i in range(2) for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    ]


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"frobenius_decay": 1e-4, "extra_bn": True}, "exclude each other"),
        ({"on_never": "stop"}, "on_never=stop is unknown"),
        ({"on_never": "switch_at"}, "needs max_epoch"),
        ({"k": 9}, "K = 9 leading dense layers is out of range"),
        ({"k": "paper"}, "the paper gives no K for this model"),
        ({"k": "automatic"}, "k=automatic is unknown"),
        ({"k": 1, "rank_floor": 1.5}, "rank_floor=1.5 must lie in"),
        ({"k": 1, "min_epoch": 8, "max_epoch": 4}, "min_epoch=8 lies behind max_epoch=4"),
        ({"k": 1, "metric": "nuclear"}, "metric=nuclear is unknown"),
        ({"k": 1, "untracked": ["7"]}, "untracked names '7'"),
    ],
)
def test_bad_input(knobs, sentence):
    with pytest.raises(CuttlefishError, match=sentence):
        Cuttlefish(network(), IMAGES, epochs=10, **knobs)


def test_public_names():
    assert {
        "Cuttlefish",
        "factorize",
        "densify",
        "stable_rank",
        "full_rank",
        "StabilityTest",
        "RankTracker",
    } <= set(dir(cuttlefish))
    assert all(getattr(cuttlefish, name) is not None for name in cuttlefish.__all__)
    with pytest.raises(AttributeError):
        _ = cuttlefish.nothing
