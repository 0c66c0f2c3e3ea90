"""IMP as a method: what a level starts from, what is zero when, how long it all takes, what it refuses."""

import math
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from baselines.imp.levels import ladder, next_masks
from baselines.imp.method import Imp, Settings
from cuttlefish.config.recipe import RecipeConfig
from cuttlefish.engine.saving import saver as saver_module
from cuttlefish.engine.step import StepRunner
from cuttlefish.errors import CuttlefishError
from cuttlefish.methods import planned_epochs
from cuttlefish.methods.base import Method, Phase
from cuttlefish.record.folder import read_epochs
from cuttlefish.record.record import read_record
from cuttlefish.worker import run_config
from tests.helpers.runs import little_config

STEPS = math.ceil(56 / 16)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run with all that happened in it: states at the start of levels, at evaluations and in checkpoints;
    counted steps."""
    seen = SimpleNamespace(
        starts=[], evaluated=[], saved=[], steps=[], momenta=[], folder=tmp_path_factory.mktemp("imp")
    )
    with pytest.MonkeyPatch.context() as patch:
        enter, step, save, train = (
            Imp._enter,
            Imp.on_step_end,
            saver_module.save_checkpoint,
            StepRunner.step,
        )

        def entering(self, level, context):
            before = deepcopy(context.model.state_dict())
            enter(self, level, context)
            seen.starts.append(
                (before, deepcopy(context.model.state_dict()), dict(self.masks or {}), self.rewind)
            )

        def stepping(self, model):
            step(self, model)
            seen.steps.append(len(self.kept))

        def training(self, *arguments):
            seen.momenta.append(len(self.optimizer.state))
            return train(self, *arguments)

        def evaluating(self, model):
            seen.evaluated.append((dict(self.masks or {}), deepcopy(model.state_dict())))
            return Method.evaluating(self, model)

        def saving(folder, number, state, step=None):
            seen.saved.append(deepcopy(state))
            return save(folder, number, state, step)

        patch.setattr(Imp, "_enter", entering)
        patch.setattr(Imp, "on_step_end", stepping)
        patch.setattr(Imp, "evaluating", evaluating)
        patch.setattr(StepRunner, "step", training)
        patch.setattr(saver_module, "save_checkpoint", saving)
        options = {
            "method__level_epochs": 3,
            "method__rewind_epoch": 1,
            "recipe__epochs": 3,
            "recipe__optimizer": {"weight_decay": 0.1},
        }
        seen.record = run_config(little_config(seen.folder, "imp", **options))
    return seen


def test_pruned_weights_are_zero_whenever_anyone_looks(run):
    looked = [*run.evaluated, *((state["method"]["masks"] or {}, state["model"]) for state in run.saved)]
    assert sum(bool(masks) for masks, _ in looked) == 8, (
        "two pruned levels of two epochs, evaluated and saved"
    )
    for masks, weights in looked:
        assert all(not weights[name][~mask].any() for name, mask in masks.items())


def test_masks_shrink_and_go_by_the_level_s_last_weights(run):
    weights = [name for name, tensor in run.starts[0][0].items() if tensor.ndim >= 2]
    masks = [start[2] for start in run.starts]
    assert masks[0] == {} and all(set(mask) == set(weights) for mask in masks[1:]), (
        "convolutions and linear layers, nothing else"
    )
    for level in (1, 2):
        before, now = masks[level - 1], masks[level]
        trained = run.starts[level][0]
        expected = next_masks({name: trained[name] for name in weights}, before, fraction=0.2)
        assert all(torch.equal(now[name], expected[name]) for name in weights)
        assert all(not (now[name] & ~before[name]).any() for name in before)
    assert run.record.extra["kept"] == ladder(run.record.extra["kept"][0], 0, 0.2, "exact_k")[:3]


def test_every_level_starts_from_the_rewound_state_to_the_bit(run):
    kept = next(state["model"] for state in run.saved if state["progress"]["trained"] == 1)
    for _, start, masks, rewind in run.starts:
        assert all(torch.equal(rewind[name], kept[name]) for name in kept)
        for name, tensor in start.items():
            expected = kept[name] * masks[name] if name in masks else kept[name]
            assert torch.equal(tensor, expected), name
    assert any("running_mean" in name for name in kept) and any(
        "num_batches_tracked" in name for name in kept
    )


def test_momentum_does_not_outlive_a_level(run):
    assert [i for i, entries in enumerate(run.momenta) if entries == 0] == [0, STEPS, 3 * STEPS, 5 * STEPS], (
        "empty at each first step"
    )


def test_steps_epochs_and_learning_rates(run, tmp_path):
    assert [run.steps.count(entered) for entered in range(4)] == [STEPS] + 3 * [2 * STEPS], (
        "(T − k) · ceil(n / batch) a level"
    )
    assert run.record.epochs_trained == 1 + 3 * 2
    trained = {phase["name"]: phase["epochs"] for phase in run.record.phases}
    assert trained == {"pretrain": 1, "level 0": 2, "level 1": 2, "level 2": 2}
    run_config(little_config(tmp_path, recipe__epochs=3))
    dense = [row["lr"] for row in read_epochs(tmp_path)]
    assert [row["lr"] for row in read_epochs(run.folder)] == [dense[0]] + 3 * dense[1:]
    assert "masks" in run.record.seconds


class TwoPhases(Method):
    """Ordinary training with a new optimizer at epoch 1."""

    name = "two_phases"

    def phases(self, context):
        yield Phase("first", range(1))
        yield Phase("second", range(1, context.recipe.epochs))


def test_no_levels_is_plain_training_with_a_momentum_reset(tmp_path, monkeypatch):
    options = {"method__levels": 0, "method__level_epochs": 4, "method__rewind_epoch": 1}
    pruned = run_config(little_config(tmp_path / "imp", "imp", **options))
    monkeypatch.setattr("cuttlefish.methods.full_rank.method.FullRank.phases", TwoPhases.phases)
    plain = run_config(little_config(tmp_path / "plain"))
    assert pruned.loss_final == plain.loss_final and pruned.params_nonzero == plain.params_nonzero
    monkeypatch.undo()
    assert run_config(little_config(tmp_path / "one phase")).loss_final != plain.loss_final, (
        "the reset is there"
    )


def test_rewind_epoch_zero_is_the_original_lottery_ticket(tmp_path):
    record = run_config(little_config(tmp_path, "imp", method__rewind_epoch=0))
    assert [phase["name"] for phase in record.phases] == [
        "level 0",
        "level 1",
        "level 2",
    ] and record.epochs_trained == 6


def test_target_takes_the_nearest_number_of_levels(tmp_path):
    dense = run_config(little_config(tmp_path / "dense", recipe__epochs=1))
    target = round(0.70 * dense.params_full)
    record = run_config(
        little_config(tmp_path / "imp", "imp", method__levels=None, method__target_params=target)
    )
    assert record.extra["levels"] == 2 and record.extra["neighbour"]["levels"] == 1
    assert record.target["achieved"] == record.extra["params_pruned_to"] == record.params_nonzero
    assert 0.9 < record.target["ratio"] < 1.0
    matched = little_config(
        tmp_path / "matched", "imp", method__levels=None, method__match=str(tmp_path / "imp")
    )
    assert run_config(matched).extra["levels"] == 2
    assert read_record(tmp_path / "matched").target["source"].startswith("run ")


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"levels": 60}, "levels=60 would empty layers of this model: 4. at most"),
        ({"levels": None, "target_params": 10**6}, r"the nearest it can is 176,012$"),
        ({"levels": None, "target_params": 10}, r"the nearest it can is 1,225$"),
        ({"target_params": 100}, "give levels, target_params or match"),
        ({"mode": "exact"}, "mode must be one of .* did you mean exact_k"),
        ({"fraction": 1.0}, "fraction must be .* not 1.0"),
        (
            {"ignore": ["layer1.0.conv9"]},
            "ignore names .layer1.0.conv9., .*; the nearest names are layer1.0.conv",
        ),
        ({"rewind_epoch": 2}, "rewind_epoch=2 lies outside a level's 2 epochs"),
        ({"equal_budget": True}, "give level_epochs or equal_budget"),
        ({"level_epochs": None, "equal_budget": True, "levels": 8}, "9 levels .* do not fit into 4 epochs"),
        ({"recipe": {"batch_size": 3}}, "recipe.batch_size"),
        ({"recipe": {"schedule": {"peak_lr": -1.0}}}, "schedule.peak_lr must be above 0"),
    ],
)
def test_bad_input_ends_before_training(tmp_path, knobs, sentence):
    with pytest.raises(CuttlefishError, match=sentence):
        run_config(
            little_config(
                tmp_path / "run", "imp", **{f"method__{key}": value for key, value in knobs.items()}
            )
        )
    assert not (tmp_path / "run").exists()


def test_planned_epochs_need_no_model_unless_it_decides():
    recipe = RecipeConfig(epochs=10)
    planned = [
        planned_epochs({"name": "imp", "rewind_epoch": 1, **knobs}, recipe)
        for knobs in ({"levels": 2}, {"levels": 0}, {"target_params": 9}, {"equal_budget": True})
    ]
    assert planned == [1 + 3 * 9, 10, None, 10]


def test_a_model_without_layers_is_refused():
    context = SimpleNamespace(model=nn.Sequential(nn.Flatten()), recipe=RecipeConfig())
    with pytest.raises(CuttlefishError, match="this model has none"):
        Imp(Settings()).prepare(context)
