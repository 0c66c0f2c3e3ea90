"""GraSP: the scores against an explicit Hessian, their invariants, what is drawn and kept, and what it does in a run."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from itertools import cycle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from baselines.grasp import Grasp
from baselines.grasp_math import (
    Samples,
    choose_masks,
    draw_any,
    draw_per_class,
    hessian_gradient,
    lets_signal_through,
    removals,
    scores,
    split_parts,
)
from cuttlefish.engine.checkpoint import newest_checkpoint
from cuttlefish.engine.session import Session
from cuttlefish.errors import CuttlefishError
from cuttlefish.methods.masks import Masks, prunable
from cuttlefish.worker import run_config
from tests.runs import METHODS, little_config


class Net(nn.Module):
    """conv, train-mode BN, conv, BN, linear; smooth, so that an explicit Hessian exists everywhere."""

    def __init__(self, eps: float = 1e-5, norm: bool = True):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2, self.fc = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3, bias=False), nn.Linear(3, 4)
        self.bn1, self.bn2 = (nn.BatchNorm2d(3, eps=eps) if norm else nn.Identity() for _ in range(2))
        self.double()

    def forward(self, x):
        x = torch.tanh(self.bn1(self.conv1(x)))
        return self.fc(torch.tanh(self.bn2(self.conv2(x))).mean((2, 3)))


def batch(size: int = 12, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % 4
    return torch.randn(size, 2, 6, 6, generator=generator, dtype=torch.float64), labels


def halves(drawn=None):
    return lambda: split_parts(drawn or batch())


def gradient_of(model, parts, temperature=200.0):
    weights = list(prunable(model).values())
    loss = sum(F.cross_entropy(model(images) / temperature, labels) for images, labels in parts())
    return torch.autograd.grad(loss, weights)


# The scores


def test_scores_are_those_of_an_explicit_hessian():
    model = Net()
    names = list(prunable(model))
    others = {name: value for name, value in model.named_parameters() if name not in names}
    buffers = dict(model.named_buffers())
    shapes = [value.shape for value in prunable(model).values()]
    theta = torch.cat([value.detach().flatten() for value in prunable(model).values()])

    def loss(flat):
        pieces = flat.split([math.prod(shape) for shape in shapes])
        weights = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        state = {**others, **weights, **{name: value.clone() for name, value in buffers.items()}}
        return sum(F.cross_entropy(torch.func.functional_call(model, state, (x,)) / 200, y) for x, y in halves()())

    H = torch.autograd.functional.hessian(loss, theta)
    g = torch.autograd.functional.jacobian(loss, theta)
    found = torch.cat([value.flatten() for value in scores(deepcopy(model), halves()).values()])
    torch.testing.assert_close(found, -theta * (H @ g), rtol=1e-8, atol=1e-16)
    assert float(found.sum()) == pytest.approx(float(-theta @ H @ g), rel=1e-8)


def test_on_a_quadratic_the_scores_are_theta_times_a_squared_theta():
    torch.manual_seed(0)
    theta = torch.randn(6, dtype=torch.float64, requires_grad=True)
    A = torch.randn(6, 6, dtype=torch.float64)
    A = A + A.T
    (product,) = hessian_gradient(lambda: iter([theta @ A @ theta / 2]), [theta])
    torch.testing.assert_close(product, (A @ A @ theta).detach())


def test_the_sign_prefers_what_carries_gradient_flow():
    """For a loss A θ² / 2 the flow g² falls most where A² θ² is large: a large score there would be wrong."""
    theta = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
    A = torch.tensor([0.1, 3.0], dtype=torch.float64)
    (product,) = hessian_gradient(lambda: iter([(A * theta * theta).sum() / 2]), [theta])
    masks = choose_masks({"theta": -theta.detach() * product}, 1)
    assert masks["theta"].tolist() == [False, True]


def test_scores_of_a_normalised_layer_sum_to_its_squared_gradient():
    """Such a layer's output does not depend on its scale: θ·g = 0 and θ·H·g = -|g|² per layer, if epsilon is negligible."""
    model = Net(eps=1e-14)
    gradient = dict(zip(prunable(model), gradient_of(model, halves()), strict=True))
    found = scores(deepcopy(model), halves())
    for name in ("conv1.weight", "conv2.weight"):
        theta, g = prunable(model)[name].detach(), gradient[name]
        assert float((theta * g).sum()) == pytest.approx(0, abs=1e-9 * float(theta.norm() * g.norm()))
        # g is homogeneous in θ_l: of degree -1 in the layer's own block, of degree 0 in the others, so H·θ_l = -g_l there and 0 elsewhere.
        assert float(found[name].sum()) == pytest.approx(float((g * g).sum()), rel=1e-9)
        assert found[name].sum() > 0


def test_masks_do_not_change_with_the_scale_of_the_loss_or_sum_and_mean():
    model, drawn = Net(), batch()
    weights = list(prunable(model).values())

    def scaled(factor):
        return lambda: (factor * F.cross_entropy(model(x) / 200, y) for x, y in split_parts(drawn))

    plain, other = (dict(zip("abc", hessian_gradient(scaled(factor), weights), strict=True)) for factor in (1.0, 0.5))
    torch.testing.assert_close(other["b"], plain["b"] / 4)
    first, second = choose_masks(plain, 60), choose_masks(other, 60)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_temperature_is_a_scale_of_the_last_layer_s_output():
    model = Net()

    class Cooler(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = deepcopy(model)

        def forward(self, x):
            return self.net(x) / 200

    hot, cool = scores(deepcopy(model), halves(), temperature=200), scores(Cooler(), halves(), temperature=1)
    for name, score in hot.items():
        torch.testing.assert_close(cool[f"net.{name}"], score, rtol=1e-12, atol=0)


def test_train_mode_is_what_counts():
    train, still = scores(Net().train(), halves()), scores(Net().eval(), halves())
    assert not torch.allclose(train["conv1.weight"], still["conv1.weight"], rtol=0.1, atol=0)


def test_chunks_of_equal_size_without_norms_score_alike():
    model, drawn = Net(norm=False), batch(12)
    whole = scores(deepcopy(model), lambda: [drawn])
    for size in (6, 4, 3):
        found = scores(deepcopy(model), lambda size=size: split_parts(drawn, size))
        for name in whole:
            torch.testing.assert_close(found[name], whole[name] * (12 // size) ** 2, rtol=1e-9, atol=1e-18)
    uneven = scores(deepcopy(model), lambda: split_parts(drawn, 5))
    assert not torch.allclose(uneven["fc.weight"] / 9, whole["fc.weight"], rtol=1e-3, atol=0)


def test_dropout_is_the_same_in_both_passes_and_the_random_state_is_left_alone():
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 4)).double()
    dropped = []
    model[3].register_forward_hook(lambda module, inputs, output: dropped.append(output == 0))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = scores(model, halves())
    assert torch.equal(torch.get_rng_state(), before)
    gradient, product = dropped[:2], dropped[2:]
    assert [mask.shape for mask in product] == [mask.shape for mask in gradient] == [(6, 5)] * 2
    assert all(torch.equal(*masks) for masks in zip(gradient, product, strict=True)) and not torch.equal(*gradient)
    second = scores(model, halves())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_weight_that_is_not_used_scores_zero():
    model = Net()
    model.spare = nn.Linear(2, 2).double()
    assert not scores(model, halves())["spare.weight"].any()


# What is kept


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-4, 4), min_size=2, max_size=30), st.data())
def test_the_lowest_scores_are_kept_exactly(values, data):
    removed = data.draw(st.integers(0, len(values) - 1))
    flat = torch.tensor(values, dtype=torch.float64)
    cut = len(values) // 2
    found = {"a": flat[:cut].view(1, -1), "b": flat[cut:]}
    masks = choose_masks(found, removed)
    kept = torch.cat([masks[name].flatten() for name in found])
    assert {name: mask.shape for name, mask in masks.items()} == {name: score.shape for name, score in found.items()}
    assert int(kept.sum()) == len(values) - removed
    if removed:
        assert flat[~kept].min() >= flat[kept].max()
    assert kept.equal(torch.cat([choose_masks(found, removed)[name].flatten() for name in found]))
    original = torch.cat([mask.flatten() for mask in choose_masks(found, removed, "original").values()])
    assert (not removed and original.all()) or original.equal(flat <= flat.sort(descending=True).values[removed - 1])


def test_the_original_keeps_one_more():
    found = {"a": torch.arange(10.0)}
    assert int(choose_masks(found, 4)["a"].sum()) == 6 and int(choose_masks(found, 4, "original")["a"].sum()) == 7


def test_a_ratio_of_a_third_does_not_lose_one_to_truncation():
    total = 300
    lost = [ratio for ratio in (1 / 3, 0.29, 0.57, 0.9) if removals(ratio, total, "original") < removals(ratio, total)]
    assert lost and removals(1 / 3, total) == 100 and removals(0.0, total) == 0


def test_scores_that_are_no_numbers_give_no_order():
    with pytest.raises(CuttlefishError, match="not all finite"):
        choose_masks({"a": torch.tensor([1.0, math.nan])}, 1)


# What is drawn


def stream(labels, size: int = 4) -> Samples:
    labels = torch.tensor(labels)
    images = torch.arange(len(labels)).view(-1, 1, 1, 1).double()
    return Samples(cycle(list(zip(images.split(size), labels.split(size), strict=True))))


def test_the_first_of_each_class_are_drawn_and_sorted():
    images, labels = draw_per_class(stream([2, 0, 0, 0, 1, 2, 1, 2, 1, 0]), 3, 2)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2] and images.flatten().tolist() == [1, 2, 4, 6, 0, 5]


three_classes = st.lists(st.integers(0, 2), min_size=3, max_size=30).filter(lambda labels: len(set(labels)) == 3)


@settings(deadline=None, max_examples=25)
@given(three_classes, st.integers(1, 9), st.integers(1, 4))
def test_draws_do_not_depend_on_the_size_of_batches(labels, size, per_class):
    """Several processes get smaller batches than one."""
    for draw in (lambda samples: draw_per_class(samples, 3, per_class), lambda samples: draw_any(samples, per_class)):
        one, other = stream(labels, 4), stream(labels, size)
        for _ in range(3):
            (images, given), (same, _) = draw(one), draw(other)
            assert torch.equal(images, same)
            assert len(given) in (per_class, 3 * per_class)


def test_exactly_enough_samples_are_enough():
    """The original waits for one more of each class."""
    _, labels = draw_per_class(Samples([(torch.zeros(4, 1), torch.tensor([0, 1, 1, 0]))]), 2, 2)
    assert labels.tolist() == [0, 0, 1, 1]


def test_a_class_that_never_comes_ends_in_one_sentence():
    with pytest.raises(CuttlefishError, match=r"samples_per_class=2 of each of the 3 classes, .* held only 0 of class 1"):
        draw_per_class(stream([0, 2, 0, 2, 2]), 3, 2)


def test_any_images_in_their_order():
    samples = stream([2, 0, 0, 0, 1, 2])
    images, labels = draw_any(samples, 5)
    assert images.flatten().tolist() == [0, 1, 2, 3, 4] and labels.tolist() == [2, 0, 0, 0, 1]
    assert draw_any(samples, 3)[0].flatten().tolist() == [5, 0, 1]


def test_parts_are_halves_or_chunks_and_mix_classes_only_when_shuffled():
    drawn = torch.arange(8).view(-1, 1), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    assert [labels.tolist() for _, labels in split_parts(drawn)] == [[0] * 4, [1] * 4]
    assert [len(labels) for _, labels in split_parts(drawn, 3)] == [3, 3, 2]
    mixed = split_parts(drawn, shuffle=0)
    assert all(set(labels.tolist()) == {0, 1} for _, labels in mixed)
    assert sorted(torch.cat([images for images, _ in mixed]).flatten().tolist()) == list(range(8))
    assert len(split_parts((drawn[0][:1], drawn[1][:1]))) == 1


# In the trainer


def session(folder, **knobs) -> Session:
    return Session(replace(little_config(folder), method={"name": "grasp", **METHODS["grasp"], **knobs}), "key", folder)


def started(folder, **knobs) -> tuple[Grasp, Session]:
    run = session(folder, **knobs)
    run.method.on_fit_start(run.context)
    return run.method, run


def test_scoring_leaves_the_model_its_buffers_and_the_random_state_alone(tmp_path):
    run = session(tmp_path, ratio=0.0, reinit_classifier="all")
    before = {name: tensor.clone() for name, tensor in run.context.model.state_dict().items()}
    random, mode = torch.get_rng_state(), run.context.model.training
    run.method.on_fit_start(run.context)
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.context.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random) and run.context.model.training == mode
    assert all(mask.all() for mask in run.method.masks.values())
    assert not any(parameter.grad is not None for parameter in run.context.model.parameters())


def test_masks_are_the_same_again_and_cover_conv_and_linear_weights_only(tmp_path):
    (first, run), (again, _) = started(tmp_path), started(tmp_path)
    assert all(torch.equal(first.masks[name], again.masks[name]) for name in first.masks)
    weights = {f"{name}.weight" for name, module in run.context.model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
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


@pytest.mark.parametrize("mode", ["exact_k", "original"])
def test_a_target_is_met_exactly(tmp_path, mode):
    method, run = started(tmp_path, ratio=None, target_params=9999, mode=mode)
    assert sum(int(parameter.numel()) for parameter in run.context.model.parameters()) - method.masks.total + method.masks.kept == 9999
    assert method.on_fit_end(run.context)["target"] == {"params": 9999, "source": "target_params", "achieved": 9999, "ratio": 1.0}


def test_sizes_of_resnet50_are_the_audit_s():
    from torchvision.models import resnet50

    with torch.device("meta"):
        model = resnet50()
    total = sum(weight.numel() for weight in prunable(model).values())
    params = sum(parameter.numel() for parameter in model.parameters())
    assert (params, total) == (25_557_032, 25_502_912)
    assert params - removals(0.6, total) == 10_255_285
    # 7,650,873.6 weights: the original truncates, and a rounded number is nearer.
    assert (params - removals(0.3, total, "original"), params - removals(0.3, total)) == (17_906_159, 17_906_158)


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"ratio": 1.0}, "must be in"),
        ({"ratio": 0.99999}, "would remove all"),
        ({"target_params": 5000}, "give ratio, target_params or match"),
        ({"ratio": None, "target_params": 600}, r"the nearest it can is 605$"),
        ({"ratio": None, "target_params": 50_000}, r"the nearest it can is 44,424$"),
        ({"samples_per_class": 0}, "at least 1"),
        ({"temperature": 0.0}, "above 0"),
        ({"recipe": {"batch_size": 3}}, "batch"),
    ],
)
def test_bad_input_ends_in_one_sentence_before_training(tmp_path, knobs, sentence):
    with pytest.raises(CuttlefishError, match=sentence):
        session(tmp_path, **knobs)


def test_a_class_one_image_short_is_refused_before_there_is_a_folder(tmp_path):
    """The stream is endless: it would give the same images again and call them enough."""
    folder = tmp_path / "run"
    with pytest.raises(CuttlefishError, match=r"samples_per_class=15 images of every class, but .* only 14 of class 0"):
        run_config(little_config(folder, "grasp", method__samples_per_class=15))
    assert not folder.exists()
    session(folder, samples_per_class=15, images_per_iter=20)
    context = session(folder, samples_per_class=14).context
    assert context.images_of_class == [14] * 4
    images, _ = draw_per_class(Samples(context.samples()), 4, 14)
    assert len(images.flatten(1).unique(dim=0)) == 56


def test_a_network_that_no_signal_passes_is_refused_before_training(tmp_path):
    with pytest.raises(CuttlefishError, match="would empty .* keep more weights"):
        started(tmp_path, ratio=None, target_params=608)


def test_an_emptied_layer_beside_a_shortcut_is_told_and_trained(tmp_path, monkeypatch):
    run = session(tmp_path)
    run.method.masks = Masks({"layer1.0.conv1.weight": torch.zeros(4, 4, 3, 3, dtype=torch.bool)})
    told = []
    run.context.log = told.append
    run.method._examine(run.context, deepcopy(run.context.model).train())
    assert told == ["grasp has emptied 1 of 1 layers: layer1.0.conv1"]


def test_a_signal_is_one_that_depends_on_the_input():
    model = Net()
    assert lets_signal_through(model, batch()[0])
    model.conv2.weight.data.zero_()
    assert not lets_signal_through(model, batch()[0])


def test_pruned_weights_stay_zero_and_never_count(tmp_path):
    record = run_config(little_config(tmp_path, "grasp"))
    state = newest_checkpoint(tmp_path / "checkpoints")
    for name, mask in state["method"]["masks"].items():
        assert torch.equal(state["model"][name] != 0, mask)
    assert record["params_nonzero"] == record["extra"]["params_pruned_to"] < record["params_total"] == record["params_full"]
    assert sum(record["extra"]["kept_by_layer"].values()) == record["extra"]["kept"]
    assert record["phases"][0]["seconds"]["scoring"] > 0


def test_a_step_cannot_bring_a_pruned_weight_back(tmp_path):
    method, run = started(tmp_path)
    model = run.context.model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    method.on_step_end(model)
    assert all(not parameter[~method.masks[name]].any() for name, parameter in model.named_parameters() if name in method.masks)
    assert (model.bn1.weight == 2).all()


def test_it_cannot_start_in_the_middle_of_another_run(tmp_path):
    run = session(tmp_path)
    with pytest.raises(CuttlefishError, match="prunes before the first step"):
        run.method.load_state_dict(run.context, {"history": {}})
