"""EB as a method: when the ticket is drawn, what trains on from there, how it is sized, what it refuses."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from baselines.eb.channels import mask_channels
from baselines.eb.method import NEVER, SETTLED, Eb, Settings
from cuttlefish.config.recipe import RecipeConfig
from cuttlefish.engine.saving import saver as saver_module
from cuttlefish.engine.saving.checkpoint import newest_checkpoint
from cuttlefish.errors import CuttlefishError
from cuttlefish.record.folder import read_epochs
from cuttlefish.worker import run_config
from tests.helpers.runs import little_config

STILL = {
    "recipe__schedule": {"base_lr": 1e-12, "peak_lr": 1e-12},
    "trainer__max_steps": 1,
    "recipe__epochs": 8,
}
"""A learning rate with which no scale moves, so that every mask is the same."""


def saved_states(patch):
    """Every checkpoint of the runs to come, in memory."""
    states, save = [], saver_module.save_checkpoint

    def saving(folder, number, state, step=None):
        states.append(deepcopy(state))
        return save(folder, number, state, step)

    patch.setattr(saver_module, "save_checkpoint", saving)
    return states


@pytest.mark.parametrize(("guard", "epoch"), [(True, 5), (False, 4)])
def test_constant_masks_settle_at_the_fifth_that_counts(tmp_path, guard, epoch):
    record = run_config(
        little_config(tmp_path, "eb", method__fifo=5, method__eps=0.1, method__guard=guard, **STILL)
    )
    assert (record.switch_epoch, record.switch_reason) == (epoch, SETTLED)
    assert [(phase["name"], phase["epochs"]) for phase in record.phases] == [
        ("search", epoch),
        ("retrain", 8 - epoch),
    ]
    assert record.epochs_trained == 8, "search and retraining together take the run's epochs"


def test_no_ticket_is_said_or_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("baselines.eb.method.has_settled", lambda *masks: False)
    record = run_config(little_config(tmp_path / "slim", "eb", method__max_epoch=2))
    assert (record.switch_epoch, record.switch_reason) == (
        2,
        NEVER,
    ) and record.params_total < record.params_full
    last = run_config(little_config(tmp_path / "last", "eb"))
    assert last.switch_epoch == 3, "by default at the run's last epoch"
    with pytest.raises(CuttlefishError, match=r"no ticket up to epoch 2 \(on_never=error\)"):
        run_config(little_config(tmp_path / "error", "eb", method__max_epoch=2, method__on_never="error"))


def test_search_without_l1_is_plain_training_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr("baselines.eb.method.has_settled", lambda *masks: False)
    options = {"method__gamma_init": None}
    states = saved_states(monkeypatch)
    for s in (0.0, 1e-2):
        run_config(little_config(tmp_path / str(s), "eb", method__s=s, **options))
    run_config(little_config(tmp_path / "plain"))
    without, with_l1, plain = (states[4 * i + 2] for i in range(3))  # after epoch 3, before the ticket
    assert without["model"].keys() == plain["model"].keys()
    assert all(torch.equal(without["model"][name], plain["model"][name]) for name in plain["model"])
    assert not all(torch.equal(with_l1["model"][name], plain["model"][name]) for name in plain["model"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    seen = SimpleNamespace(folder=tmp_path_factory.mktemp("eb"))
    with pytest.MonkeyPatch.context() as patch:
        enter = Eb._enter

        def entering(self, context):
            seen.masked = mask_channels(
                deepcopy(context.model), self.chains, self._split(self.ticket["mask"])
            )
            enter(self, context)
            seen.small, seen.images = deepcopy(context.model), context.example_batch().inputs

        patch.setattr(Eb, "_enter", entering)
        seen.states = saved_states(patch)
        seen.record = run_config(little_config(seen.folder, "eb", recipe__epochs=6, method__fifo=3))
    return seen


def test_the_network_that_trains_on_is_the_masked_one(run):
    for train in (False, True):
        masked, small = run.masked.train(train), run.small.train(train)
        torch.testing.assert_close(small(run.images), masked(run.images), rtol=1e-5, atol=1e-5)
    assert (
        sum(parameter.numel() for parameter in run.small.parameters())
        == run.record.params_total
        < run.record.params_full
    )
    assert run.record.macs_final < run.record.macs_full


def test_retraining_starts_at_the_ticket_with_a_new_optimizer(run, tmp_path):
    assert run.record.switch_epoch == 3 and run.record.extra["p"] == pytest.approx(0.5)
    rows = read_epochs(run.folder)
    assert [row["phase"] for row in rows] == ["search"] * 3 + ["retrain"] * 3 and [
        row["schedule_epoch"] for row in rows
    ] == list(range(6))
    run_config(little_config(tmp_path, recipe__epochs=6))
    dense = [row["lr"] for row in read_epochs(tmp_path)]
    assert [row["lr"] for row in rows] == dense, (
        "the schedule is absolute: no second warm-up, no milestone lost"
    )
    shapes = [entry["momentum_buffer"].shape for entry in run.states[3]["optimizer"]["state"].values()]
    assert sorted(shapes) == sorted(parameter.shape for parameter in run.small.parameters())
    assert {"masks", "switch", "train"} <= set(run.record.seconds)


def test_record_has_the_channels(run):
    extra = run.record.extra
    assert set(extra["channels"]) == {f"layer{i}.{j}.bn1" for i in range(1, 5) for j in range(2)}
    assert all(1 <= extra["channels"][name] <= extra["channels_full"][name] for name in extra["channels"])
    state = newest_checkpoint(run.folder / "checkpoints")
    for name, count in extra["channels"].items():
        assert state["model"][f"{name}.running_mean"].shape == (count,)


def test_fresh_weights_by_inherit_weights_false(tmp_path, monkeypatch):
    starts, enter = [], Eb._enter

    def entering(self, context):
        before, random = deepcopy(context.model), torch.get_rng_state()
        enter(self, context)
        assert torch.equal(random, torch.get_rng_state()), "the global random state is left alone"
        starts.append((before, deepcopy(context.model)))

    monkeypatch.setattr(Eb, "_enter", entering)
    configs = [
        little_config(tmp_path / str(i), "eb", method__inherit_weights=inherit)
        for i, inherit in enumerate((True, False, False))
    ]
    records = [run_config(config) for config in configs]
    assert records[1].loss_final == records[2].loss_final != records[0].loss_final
    (trained, inherited), (_, fresh), _ = starts
    assert torch.equal(trained.fc.weight, inherited.fc.weight) and not torch.equal(
        trained.fc.weight, fresh.fc.weight
    )
    for module in fresh.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 0.5).all() and not module.bias.any() and not module.running_mean.any(), (
                "gamma_init again"
            )
    assert records[1].extra["inherit_weights"] is False


@pytest.mark.parametrize("share", [0.4, 0.8])
def test_target_is_met_at_the_ticket(tmp_path, share):
    whole = 44_000
    record = run_config(little_config(tmp_path / "run", "eb", method__target_params=round(share * whole)))
    assert record.target["achieved"] == record.params_total
    assert record.target["ratio"] == pytest.approx(1, abs=0.02)
    matched = run_config(little_config(tmp_path / "matched", "eb", method__match=str(tmp_path / "run")))
    assert matched.params_total == record.params_total


def test_p_grid_takes_the_nearest_of_its_sizes(tmp_path):
    options = {"recipe__epochs": 3, "method__eps": 1.0, "trainer__max_steps": 1, "method__gamma_init": None}
    sizes = {
        p: run_config(little_config(tmp_path / str(p), "eb", method__p=p, **options)).params_total
        for p in (0.2, 0.6)
    }
    for p, size in sizes.items():
        target = {"method__p_grid": [0.2, 0.6], "method__target_params": size + 300}
        assert (
            run_config(little_config(tmp_path / f"grid {p}", "eb", **target, **options)).params_total == size
        )
    assert sizes[0.2] > sizes[0.6]


def test_penalty_while_retraining_is_a_choice(tmp_path):
    configs = [
        little_config(tmp_path / str(on), "eb", method__s=0.05, method__l1_retrain=on) for on in (True, False)
    ]
    assert run_config(configs[0]).loss_final != run_config(configs[1]).loss_final


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"p": 0.5, "target_params": 20000}, "give p, target_params or match"),
        ({"p": 1.5}, r"p must be in \[0, 1\]"),
        ({"p_grid": [0.5]}, "p_grid is what target_params or match chooses from"),
        ({"target_params": 10**6}, r"the nearest it can is 176,012$"),
        ({"target_params": 100}, r"the nearest it can is \d,\d{3}$"),
        ({"distance": "hamming"}, "distance must be one of .* not 'hamming'"),
        ({"threshold": "strict"}, "threshold must be one of .* not 'strict'"),
        ({"on_never": "wait"}, "on_never must be one of slim, error, not 'wait'"),
        ({"max_epoch": -1}, "max_epoch must be .* not -1"),
        ({"max_epoch": 0}, "before the first update, from scales that are all equal"),
        ({"recipe": {"epochs": 1, "schedule": {"warmup_epochs": 0}}}, "before the first update"),
        (
            {"fifo": 50, "on_never": "error"},
            "fifo=50 needs 50 masks to settle, and up to epoch 3 there are 3",
        ),
        ({"fifo": 3, "distance": "consecutive", "on_never": "error"}, "fifo=3 needs 4 masks"),
        (
            {"fifo": 5, "guard": False, "on_never": "error"},
            "fifo=5 needs 5 masks to settle, and up to epoch 3 there are 4",
        ),
        ({"max_epoch": 4}, "max_epoch=4 lies outside the run's 4 epochs"),
        ({"fifo": 1}, "fifo must be .* not 1"),
        ({"s": -1.0}, "s must be .* not -1.0"),
    ],
)
def test_bad_input_ends_before_training(tmp_path, knobs, sentence):
    with pytest.raises(CuttlefishError, match=sentence):
        run_config(
            little_config(tmp_path / "run", "eb", **{f"method__{key}": value for key, value in knobs.items()})
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "knobs",
    [{"fifo": 3}, {"fifo": 4, "guard": False}, {"fifo": 3, "guard": False, "distance": "consecutive"}],
)
def test_just_enough_epochs_settle_at_the_last(tmp_path, knobs):
    more = {f"method__{key}": value for key, value in {"on_never": "error", **knobs}.items()}
    record = run_config(little_config(tmp_path, "eb", **more))
    assert (record.switch_epoch, record.switch_reason) == (3, SETTLED)


class Reshaped(nn.Module):
    """Its forward has the number of channels written into it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(torch.relu(self.norm(self.conv(x))).mean((2, 3)).view(-1, 8))


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)),
            "this model has none",
        ),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), "no channel that can be removed"),
        (Reshaped(), "no channel that can be removed"),
    ],
)
def test_models_that_it_cannot_treat(model, sentence):
    context = SimpleNamespace(
        model=model,
        recipe=RecipeConfig(),
        example_batch=lambda: SimpleNamespace(inputs=torch.randn(4, 3, 8, 8)),
    )
    with pytest.raises(CuttlefishError, match=sentence):
        Eb(Settings()).prepare(context)


def test_prepare_leaves_the_model_alone():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 2, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    before, random = deepcopy(model.state_dict()), torch.get_rng_state()
    context = SimpleNamespace(
        model=model,
        recipe=RecipeConfig(),
        example_batch=lambda: SimpleNamespace(inputs=torch.ones(4, 3, 8, 8)),
    )
    Eb(Settings()).prepare(context)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state()) and model.training
