"""Cuttlefish in a plain loop: when it switches, to what, and what each knob changes."""

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD

import cuttlefish
from cuttlefish import Cuttlefish, CuttlefishError, LowRankConv2d
from cuttlefish.lowrank.rank.measures import MEASURES
from cuttlefish.lowrank.settings import Settings


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
    switched = [bool(cf.epoch_end()) for _ in range(8)]
    # Update 0 saw the initial weights, updates 1 … the shrunken ones. With a window of 3 the central
    # differences at updates 0, 1 still see the jump; 2, 3, 4 do not, so update 4 decides, epoch 4 is dense and
    # E = 5.
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
    cf = Cuttlefish(network(), IMAGES, k=1, stability="reference", keep_dense=False)
    assert [bool(cf.epoch_end()) for _ in range(17)].index(True) == 15 and cf.switch_epoch == 16
    cf = Cuttlefish(network(), IMAGES, k=1, stability="reference-imagenet", keep_dense=False)
    assert [bool(cf.epoch_end()) for _ in range(8)].index(True) == 5 and cf.switch_epoch == 6
    assert len(cf.tracker.history["3"]) == 7, "one estimate an epoch and the initial one, none twice"


def test_unscaled_floor_round_and_ratio():
    def ranks(**knobs):
        cf = Cuttlefish(network(), IMAGES, k=1, switch_epoch=0, keep_dense=False, **knobs)
        return cf.ranks

    assert ranks() == dict.fromkeys(LAYERS, 32), "at initialisation the scaled rank is full rank"
    stable = {name: cuttlefish.stable_rank(network().get_submodule(name).weight) for name in LAYERS}
    assert ranks(metric="unscaled") == {name: math.ceil(rank) for name, rank in stable.items()}
    assert ranks(metric="unscaled", floored=True) == {name: int(rank) for name, rank in stable.items()}
    assert all(8 < rank < 32 for rank in stable.values())
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
    SGD(cf.param_groups(0.1), lr=0.1).step()
    assert model.get_submodule("6").first.weight.grad.abs().sum() > 0 and model[0].weight.grad is None


def test_ranks_that_never_settle():
    def run(epochs=6, **knobs):
        model = network()
        cf = Cuttlefish(
            model,
            IMAGES,
            k=1,
            stability="paper",
            stability_options={"threshold": 0.0},
            epochs=epochs,
            keep_dense=False,
            **knobs,
        )
        return cf, [bool(cf.epoch_end()) for _ in range(epochs - 1)]

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
    from cuttlefish.lowrank.profiling import timing

    monkeypatch.setattr(timing, "measure", lambda layer, conditions: (1.0, 1.0, 1.0, 1.0, 1.0, 1.0))
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
        ({"on_never": "stop"}, "on_never must be one of .* not 'stop'"),
        ({"on_never": "switch_at"}, "needs max_epoch"),
        ({"k": 9}, "K = 9 leading dense layers is out of range"),
        ({"k": "paper"}, "the paper gives no K for this model"),
        ({"k": "automatic"}, "k must be one of profile, paper or a whole number, not 'automatic'"),
        ({"k": 1, "rank_floor": 1.5}, r"rank_floor must be in \[0, 1\], not 1.5"),
        ({"k": 1, "min_epoch": 8, "max_epoch": 4}, "min_epoch=8 lies behind max_epoch=4"),
        ({"k": 1, "metric": "nuclear"}, "metric must be one of .* not 'nuclear'"),
        ({"k": 1, "untracked": ["7"]}, "untracked names '7'"),
        ({"k": 1, "ranks": {"layer3.conv9": 4}}, "The model has no layer 'layer3.conv9'"),
        ({"k": 1, "ranks": {"33": 4}}, "no layer '33'; the nearest names are 3"),
        ({"k": 1, "ranks": {"6": 33}}, "rank 33; it must be a whole number from 1 to 32"),
        ({"k": 1, "ranks": {"6": 0}}, "ranks.6 must be .* not 0"),
        ({"k": 1, "ranks": {"6": 4}, "rank_ratio": 0.5}, "ranks and rank_ratio"),
        ({"k": 1, "min_epoch": 10}, "min_epoch=10 lies outside the run's 10 epochs"),
        ({"k": 1, "max_epoch": 12}, "max_epoch=12 lies outside the run's 10 epochs"),
        ({"k": 1, "switch_epoch": 10}, "switch_epoch=10 lies outside the run's 10 epochs"),
        ({"k": 1, "stability_options": {"threshold": "high"}}, "threshold must be"),
        ({"k": 1, "stability_options": {"window": [1]}}, "window must be"),
        ({"k": 1, "switch_epoch": 3, "stability_options": {"window": [1]}}, "window must be"),
        ({"k": 1, "switch_epoch": 3, "stability_options": {"foo": 1}}, "unknown stability option 'foo'"),
        ({"k": 1, "switch_epoch": 3, "stability": "foo"}, "stability must be one of"),
        ({"k": 1, "stability_options": {"latch": "no"}}, "latch must be"),
        ({"k": 1, "stability_options": {"relaxed": 3}}, "relaxed must be"),
        ({"k": 1, "stability_options": {"derivative": 3}}, "derivative must be"),
        ({"k": 1, "stability_options": [3]}, "stability_options must be"),
        ({"k": 1, "untracked": "9"}, "untracked must be a list"),
        ({"k": 1, "round_to": 2.5}, "round_to must be a whole number, not 2.5"),
        ({"k": 1, "keep_dense": "no"}, "keep_dense must be true or false, not 'no'"),
        ({"k": [1]}, "k must be"),
        ({"k": 1, "ranks": [4]}, "ranks must be a mapping"),
        ({"k": 1, "treshold": 2.0}, "no setting 'treshold'; the nearest names are threshold"),
        ({"settings": Settings(), "k": 1}, "k is given beside settings="),
    ],
)
def test_bad_input(knobs, sentence):
    model = network()
    before = [type(module) for module in model.modules()]
    with pytest.raises(CuttlefishError, match=sentence):
        Cuttlefish(model, IMAGES, epochs=10, **knobs)
    assert [type(module) for module in model.modules()] == before


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrapped_and_compiled_models_are_refused_at_construction(wrap):
    with pytest.raises(CuttlefishError, match="cannot be changed in place; change the .*model"):
        Cuttlefish(wrap(network()), IMAGES, k=1, epochs=10)


def test_a_switch_that_factorizes_nothing_is_none(caplog):
    """At initialisation every scaled rank is full rank, above break-even: m·n/(m+n) = 26.2 and 28.8 of 32."""
    model = network()
    cf = Cuttlefish(model, IMAGES, k=1, switch_epoch=2)
    assert [bool(cf.epoch_end()) for _ in range(4)] == [False] * 4
    assert not cf.switched and cf.switch_epoch is None and cf.reason == "declined" and cf.final_ranks() == {}
    assert (
        cf.kept_dense["6"] == "rank 32 saves nothing (break-even 28.8)"
        and set(LAYERS) <= cf.kept_dense.keys()
    )
    assert cf.kept_dense["0"] == "it is among the leading dense layers (K = 1)"
    assert cf.kept_dense["14"] == "it feeds the model's output"
    (told,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert told.name == "cuttlefish" and "3: rank 32 saves nothing (break-even 26.2)" in told.getMessage()
    again = Cuttlefish(network(), IMAGES, state=cf.state_dict())
    assert again.reason == "declined" and again.kept_dense == cf.kept_dense and not again.epoch_end()


def test_layers_that_stay_dense_at_a_switch_say_why():
    model = network()
    cf = Cuttlefish(model, IMAGES, k=1, switch_epoch=1)
    shrink(model, ["6", "9"])
    assert cf.epoch_end() and sorted(cf.final_ranks()) == ["6", "9"]
    assert cf.kept_dense["3"] == "rank 32 saves nothing (break-even 26.2)" and "6" not in cf.kept_dense


def test_layers_that_no_profile_chose_say_why(monkeypatch, caplog):
    from cuttlefish.lowrank.profiling import timing

    monkeypatch.setattr(timing, "measure", lambda layer, conditions: (1.2, 1.0, 1.0, 1.0, 1.0, 1.0))
    cf = Cuttlefish(network(), IMAGES, epochs=10)
    assert "gets 1.20 times as fast at 0.25 of its rank, and 1.5 must be passed" in cf.kept_dense["6"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_weight_that_is_not_finite_names_its_layer_at_once():
    model = network()
    cf = Cuttlefish(model, IMAGES, k=1, epochs=30)
    cf.epoch_end()
    with torch.no_grad():
        model[6].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(
        CuttlefishError, match="weight of layer '6' holds NaN or infinite values before epoch 2"
    ):
        cf.epoch_end()
    assert not any(isinstance(module, LowRankConv2d) for module in model.modules())


def test_layers_held_by_a_plain_list_stay_and_are_told(caplog):
    model = network()
    model.also = [model[6]]
    cf = Cuttlefish(model, IMAGES, k=1, switch_epoch=1, rank_ratio=0.25)
    assert cf.layers == ["3", "9"] and "also holds it, too, as a plain list" in cf.kept_dense["6"]
    assert any("6 stays dense: also holds it" in record.getMessage() for record in caplog.records)
    assert cf.epoch_end() and isinstance(model[6], nn.Conv2d) and isinstance(model[9], LowRankConv2d)


class ReadsItsWeights(nn.Module):
    """As T5 does: the input is cast to the type of a weight before the layer is called."""

    def __init__(self):
        super().__init__()
        self.wi, self.wo, self.head = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 2)

    def forward(self, x):
        x = torch.relu(self.wi(x))
        if isinstance(self.wo.weight, torch.Tensor) and x.dtype != self.wo.weight.dtype:
            x = x.to(self.wo.weight.dtype)
        return self.head(self.wo(x) + self.wo.bias)


def test_a_model_that_reads_weights_survives_the_switch():
    model, x = ReadsItsWeights(), torch.randn(3, 8)
    cf = Cuttlefish(model, x, k=1, switch_epoch=1, ranks={"wo": 32}, keep_dense=False)
    before = model(x)
    assert cf.epoch_end() and torch.allclose(model(x), before, atol=1e-5)


def test_layers_that_start_at_zero():
    """One of them learns and is scaled as a random layer would be; one stays at zero and is left dense."""
    model = network()
    with torch.no_grad():
        model[6].weight.zero_()
        model[9].weight.zero_()
    cf = Cuttlefish(model, IMAGES, k=1, switch_epoch=1, keep_dense=False)
    with torch.no_grad():
        model[6].weight.copy_(torch.eye(32).repeat(1, 9).view_as(model[6].weight))
        model[6].weight[8:] = 0
    assert cf.epoch_end()
    beta = (1 + math.sqrt(32 / 288)) ** 2
    assert cf.ranks["6"] == pytest.approx(8 * beta, rel=0.15)
    assert isinstance(model[9], nn.Conv2d) and "still zero" in cf.kept_dense["9"]


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, images, scale=1.0):
        return self.body(images * scale)


@pytest.mark.parametrize(
    ("batch", "forward"),
    [
        ((IMAGES, torch.ones(4, 1, 1, 1)), None),
        ({"scale": torch.ones(4, 1, 1, 1), "images": IMAGES}, None),
        ({"data": IMAGES, "label": torch.zeros(4)}, lambda model, batch: model(batch["data"])),
    ],
)
@pytest.mark.parametrize("k", [1, "profile"])
def test_batches_of_several_inputs(batch, forward, k):
    cf = Cuttlefish(
        TwoInputs(),
        batch,
        forward=forward,
        k=k,
        threshold=1e-9,
        profile_repeats=2,
        switch_epoch=0,
        rank_ratio=0.25,
    )
    assert sorted(cf.final_ranks()) == ["body.3", "body.6", "body.9"]


@pytest.mark.parametrize(
    ("metric", "name"), [("entropy", "entropy"), ("energy", "energy"), ("stable", "stable")]
)
def test_metrics_by_name(metric, name):
    model = network()
    cf = Cuttlefish(model, IMAGES, k=1, switch_epoch=1, keep_dense=False, metric=metric)
    shrink(model)
    measure = MEASURES[name]
    first = {layer: measure(network().get_submodule(layer).weight) for layer in LAYERS}
    now = {layer: measure(model.get_submodule(layer).weight) for layer in LAYERS}
    assert cf.epoch_end()
    assert cf.ranks == {layer: math.ceil(32 * now[layer] / first[layer] - 1e-6) for layer in LAYERS}
    assert cf.tracker.rows()[0]["metric"] == cf.state_dict()["metric"] == name


def test_a_measure_of_ones_own_and_states_of_another_metric():
    def trace_norm(matrix):
        return float(torch.linalg.matrix_norm(matrix, "nuc"))

    cf = Cuttlefish(network(), IMAGES, k=1, switch_epoch=3, measure=trace_norm)
    cf.epoch_end()
    assert cf.state_dict()["metric"] == "trace_norm"
    with pytest.raises(CuttlefishError, match="history is of the metric trace_norm, not stable"):
        Cuttlefish(network(), IMAGES, state=cf.state_dict())


def test_stable_is_another_name_of_scaled():
    assert Settings(metric="stable") == Settings()


def test_a_state_brings_its_settings():
    cf = Cuttlefish(network(), IMAGES, epochs=30, k=1, frobenius_decay=1e-4)
    state = cf.state_dict()
    assert Cuttlefish(network(), IMAGES, epochs=30, state=state).settings == cf.settings
    with pytest.raises(CuttlefishError, match="made with frobenius_decay=0.0001, not 0.0: give the same"):
        Cuttlefish(network(), IMAGES, epochs=30, k=1, state=state)
    without = {key: value for key, value in state.items() if key != "settings"}
    assert Cuttlefish(network(), IMAGES, epochs=30, k=1, state=without).settings.frobenius_decay == 0


def test_parameters_exchanged_before_the_switch_count():
    model, other = network(), network()
    cf = Cuttlefish(model, IMAGES, k=1, switch_epoch=1, keep_dense=False)
    shrink(other)
    model.load_state_dict(other.state_dict(), assign=True)
    assert cf.epoch_end() and all(rank < 12 for rank in cf.ranks.values())


def test_spatial_ranks_are_those_of_the_spatial_matrix():
    model = network()
    cf = Cuttlefish(model, IMAGES, k=1, switch_epoch=0, keep_dense=False, scheme="spatial")
    assert cf.ranks == {"3": 48, "6": 96, "9": 96}, "min(out·kh, in·kw) at initialisation"


def test_a_model_compiled_in_place_runs_the_factors_then():
    model = network().eval()
    cf = Cuttlefish(model, IMAGES, k=1, switch_epoch=1, rank_ratio=0.25)
    model.compile(backend="eager")
    dense = model(IMAGES)
    assert cf.epoch_end()
    compiled = model(IMAGES)
    model._compiled_call_impl = None
    assert torch.allclose(compiled, model(IMAGES), atol=1e-5) and not torch.allclose(
        compiled, dense, atol=1e-5
    )


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
