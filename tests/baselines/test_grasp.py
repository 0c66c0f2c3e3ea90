"""GraSP in the trainer: one pruning before the first step, sizes, refusals, and what training leaves of the
masks."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from baselines.grasp.method import Grasp, Settings, chunks
from baselines.grasp.scores import Samples, draw_per_class, removals
from cuttlefish.engine.run import resolve_run
from cuttlefish.engine.saving.checkpoint import newest_checkpoint
from cuttlefish.engine.session import Session
from cuttlefish.errors import CuttlefishError
from cuttlefish.methods.masks import Masks, prunable
from cuttlefish.worker import run_config
from tests.helpers.runs import METHODS, little_config


def session(folder, **knobs) -> Session:
    return Session(
        resolve_run(replace(little_config(folder), method={"name": "grasp", **METHODS["grasp"], **knobs}))
    )


def started(folder, **knobs) -> tuple[Grasp, Session]:
    run = session(folder, **knobs)
    run.method.on_fit_start(run.context)
    return run.method, run


def test_scoring_leaves_model_buffers_and_random_state_alone(tmp_path):
    run = session(tmp_path, ratio=0.0, reinit_classifier="all")
    before = {name: tensor.clone() for name, tensor in run.context.model.state_dict().items()}
    random, mode = torch.get_rng_state(), run.context.model.training
    run.method.on_fit_start(run.context)
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.context.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random) and run.context.model.training == mode
    assert all(mask.all() for mask in run.method.masks.values())
    assert not any(parameter.grad is not None for parameter in run.context.model.parameters())


def test_masks_are_the_same_again_and_cover_weights_only(tmp_path):
    (first, run), (again, _) = started(tmp_path), started(tmp_path)
    assert all(torch.equal(first.masks[name], again.masks[name]) for name in first.masks)
    weights = {
        f"{name}.weight"
        for name, module in run.context.model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    assert set(first.masks) == weights
    assert first.masks.total - first.masks.kept == round(0.8 * first.masks.total)
    for name, parameter in run.context.model.named_parameters():
        if name in first.masks:
            assert torch.equal(parameter != 0, first.masks[name])


SWITCHES = [
    {"shuffle_halves": False},
    {"reinit_classifier": "all"},
    {"num_iters": 2},
    {"images_per_iter": 10, "chunk_size": 4},
    {"samples_per_class": 5},
]


@pytest.mark.parametrize("knobs", SWITCHES)
def test_every_switch_changes_what_is_kept_but_not_how_much(tmp_path, knobs):
    (plain, _), (other, _) = started(tmp_path), started(tmp_path, **knobs)
    assert plain.masks.kept == other.masks.kept
    assert any(not torch.equal(plain.masks[name], other.masks[name]) for name in plain.masks)


def test_a_redrawn_classifier_is_scored_but_not_trained(tmp_path):
    run = session(tmp_path, reinit_classifier="last")
    weight = run.context.model.fc.weight.detach().clone()
    copy, again = run.method._copy(run.context.model), run.method._copy(run.context.model)
    assert not torch.equal(copy.fc.weight, weight) and torch.equal(copy.fc.weight, again.fc.weight)
    run.method.on_fit_start(run.context)
    assert torch.equal(run.context.model.fc.weight, weight * run.method.masks["fc.weight"])


@pytest.mark.parametrize(("which", "drawn"), [("none", ""), ("last", "1"), ("all", "01")])
def test_which_linear_layers_are_drawn_afresh_and_how(which, drawn):
    model = nn.Sequential(nn.Linear(300, 200), nn.Linear(200, 100)).eval()
    copy = Grasp(Settings(reinit_classifier=which))._copy(model)
    for name, layer in model.named_children():
        weight = copy.get_submodule(name).weight.detach()
        assert torch.equal(weight, layer.weight) != (name in drawn)
        if name in drawn:
            xavier = math.sqrt(2 / sum(weight.shape))
            assert weight.std().item() == pytest.approx(xavier, rel=0.02) and weight.max() > 3 * xavier
        assert torch.equal(copy.get_submodule(name).bias, layer.bias)
    assert copy.training and not model.training, "batch statistics are scored with"


@pytest.mark.parametrize("mode", ["exact_k", "original"])
def test_a_target_is_met_exactly(tmp_path, mode):
    method, run = started(tmp_path, ratio=None, target_params=9999, mode=mode)
    assert (
        sum(int(parameter.numel()) for parameter in run.context.model.parameters())
        - method.masks.total
        + method.masks.kept
        == 9999
    )
    assert method.on_fit_end(run.context)["target"] == {
        "params": 9999,
        "source": "target_params",
        "achieved": 9999,
        "ratio": 1.0,
    }


def test_sizes_of_resnet50_are_the_audit_s():
    from torchvision.models import resnet50

    with torch.device("meta"):
        model = resnet50()
    total = sum(weight.numel() for weight in prunable(model).values())
    params = sum(parameter.numel() for parameter in model.parameters())
    assert (params, total) == (25_557_032, 25_502_912)
    assert params - removals(0.6, total) == 10_255_285
    # 7,650,873.6 weights: the original truncates, and a rounded number is nearer.
    assert (params - removals(0.3, total, "original"), params - removals(0.3, total)) == (
        17_906_159,
        17_906_158,
    )


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"ratio": 1.0}, "must be in"),
        ({"ratio": 0.999999}, "would remove all"),
        ({"target_params": 5000}, "give ratio, target_params or match"),
        ({"ratio": None, "target_params": 600}, r"the nearest it can is 1,205$"),
        ({"ratio": None, "target_params": 200_000}, r"the nearest it can is 176,012$"),
        ({"samples_per_class": 0}, "samples_per_class must be .* not 0"),
        ({"temperature": 0.0}, "temperature must be .* not 0.0"),
        (
            {"images_per_iter": 30, "num_iters": 2},
            "images_per_iter=30 images num_iters=2 times, but the training set has only 56",
        ),
        ({"recipe": {"batch_size": 3}}, "batch"),
    ],
)
def test_bad_input_ends_in_one_sentence_before_training(tmp_path, knobs, sentence):
    with pytest.raises(CuttlefishError, match=sentence):
        session(tmp_path, **knobs)


def test_a_class_one_image_short_is_refused_before_a_folder(tmp_path):
    """The stream is endless: it would give the same images again and call them enough."""
    folder = tmp_path / "run"
    with pytest.raises(
        CuttlefishError, match=r"samples_per_class=15 images of every class, but .* only 14 of class 0"
    ):
        run_config(little_config(folder, "grasp", method__samples_per_class=15))
    assert not folder.exists()
    session(folder, samples_per_class=15, images_per_iter=20)
    context = session(folder, samples_per_class=14).context
    assert context.class_counts == [14] * 4
    images, _ = draw_per_class(Samples(chunks(context)), 4, 14)
    assert len(images.flatten(1).unique(dim=0)) == 56


def test_no_draw_of_several_holds_an_image_twice(tmp_path):
    plain = little_config(tmp_path, data__crop_padding=0, data__flip=False)  # images that can be told apart
    run = Session(
        resolve_run(replace(plain, method={"name": "grasp", "samples_per_class": 10, "num_iters": 4}))
    )
    halves = [images for images, _ in run.method._parts(run.context)]
    draws = [torch.cat(halves[start : start + 2]).flatten(1) for start in range(0, 8, 2)]
    assert [len(draw.unique(dim=0)) for draw in draws] == [40] * 4
    assert not torch.equal(draws[0].unique(dim=0), draws[1].unique(dim=0))


def test_a_network_that_no_signal_passes_is_refused(tmp_path):
    with pytest.raises(CuttlefishError, match="would empty .* keep more weights"):
        started(tmp_path, ratio=None, target_params=1208)


def test_an_emptied_layer_beside_a_shortcut_is_told_and_trained(tmp_path, monkeypatch):
    run = session(tmp_path)
    run.method.masks = Masks({"layer1.0.conv1.weight": torch.zeros(8, 8, 3, 3, dtype=torch.bool)})
    told = []
    run.context.log = told.append
    run.method._examine(run.context, deepcopy(run.context.model).train())
    assert told == ["grasp has emptied 1 of 1 layers: layer1.0.conv1"]


def test_pruned_weights_stay_zero_and_never_count(tmp_path):
    record = run_config(little_config(tmp_path, "grasp"))
    state = newest_checkpoint(tmp_path / "checkpoints")
    for name, mask in state["method"]["masks"].items():
        assert torch.equal(state["model"][name] != 0, mask)
    assert (
        record.params_nonzero == record.extra["params_pruned_to"] < record.params_total == record.params_full
    )
    assert sum(record.extra["kept_by_layer"].values()) == record.extra["kept"]
    assert record.phases[0]["seconds"]["scoring"] > 0


def test_a_step_cannot_bring_a_pruned_weight_back(tmp_path):
    method, run = started(tmp_path)
    model = run.context.model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    method.on_step_end(model)
    assert all(
        not parameter[~method.masks[name]].any()
        for name, parameter in model.named_parameters()
        if name in method.masks
    )
    assert (model.bn1.weight == 2).all()
