"""Every number that a method's public code or paper gives, against what `method=X` and its presets set.

The numbers are written down here a second time, from the descriptions of the public codes.
"""

from dataclasses import fields

import pytest

from cuttlefish.config.compose import compose_config
from cuttlefish.config.recipe import OptimizerConfig, RecipeConfig
from cuttlefish.methods import load_settings
from cuttlefish.methods.own_recipe import own_recipe
from cuttlefish.methods.schedule import build_schedule
from tests.helpers.runs import CONF, composed_settings

DEFAULTS = {
    "cuttlefish": {"ratio": 1 / 4, "threshold": 1.5, "profile_repeats": 11, "metric": "scaled", "rewarm": True},
    "pufferfish": {"rank_ratio": 1 / 4, "switch_fraction": 80 / 300, "extra_bn": True, "rewarm": True},
    "si_fd": {"rho": 0.08, "frobenius_decay": 1e-4},
    "lc": {"normalize": True, "scheme": "channel", "mu_rep": 1, "l_decay": 0.99, "l_decay_per": "epoch", "ft_from": "w"},
    "imp": {"fraction": 0.2, "ignore": []},
    "grasp": {"samples_per_class": 10, "num_iters": 1, "chunk_size": None, "temperature": 200.0},
    "eb": {"fifo": 5, "eps": 0.1, "s": 1e-4, "distance": "newest_vs_queue", "l1_retrain": True},
    "xnor": {"learning_rate": 1e-3, "weight_decay": 1e-4, "binarize_last_conv": False, "act_scale": False},
}  # fmt: skip
"""What methods do without a preset that their authors do too."""

CODE = {
    "k": "paper", "stability": "reference", "floored": True, "keep_dense": False, "decay_untracked": False,
    "overshoot": True,
}  # fmt: skip
IMAGENET_CNN = {"paper_k": 40, "factorize_shortcuts": True, "extra_bn": True}
TRANSFORMER = {
    "paper_k": 1, "stability": "reference-deit", "rank_floor": 0.5, "wait_for_dense": True, "first_bias": True,
    "restart_scale": 0.6667,
}  # fmt: skip
FEED_FORWARD = ["*.intermediate.dense", "*[0-9].output.dense"]
BERT = {"paper_k": 1, "stability_options": {"window": 1, "lag": 0}}
IMAGENET_CODE = {
    "stability": "reference-imagenet",
    "rank_floor": 0.2,
    "shortcut_bn": False,
    "forget_milestones": True,
}
PUFFERFISH_CODE = {"keep_dense": False, "overshoot": True}
LC_CODE = {
    "alpha": 4e-9, "retarget": False, "criterion": "flops", "include_first": True, "include_shortcuts": True, "steps": 50,
    "mu0": 1e-3, "mu_inc": 1.25, "epochs_per_l": 15, "l_lr": 7e-4, "ft_epochs": 200, "ft_lr": 1e-4, "ft_decay": 0.99,
    "decay_norms": True,
}  # fmt: skip
LC_VGG = {
    "alpha": 3e-10, "include_last": True, "steps": 60, "mu0": 2e-5, "mu_inc": 1.2, "ft_epochs": 300, "ft_lr": 7e-4,
    "reference_decay": 0.97716,
}  # fmt: skip
EB_CODE = {
    "threshold": "original", "guard": False, "gamma_init": 0.5, "inherit_weights": False, "decay_all": True,
}  # fmt: skip
GRASP_CODE = {"mode": "original", "shuffle_halves": False, "reinit_classifier": "all", "decay_all": True}
GRASP_IMAGENET = {"images_per_iter": 250, "num_iters": 150, "chunk_size": 20, "reinit_classifier": "last"}
IMP_CODE = {"mode": "openlth", "rewind_epoch": 6, "decay_all": True}
DENSE_TOKENS = {"k": 52, "dense": ["*.linear_tokens"]}

CHANGED = {
    "cuttlefish resnet18": {"paper_k": 5, "frobenius_decay": 1e-4},
    "cuttlefish vgg19": {"paper_k": 4, "extra_bn": True},
    "cuttlefish resnet50": IMAGENET_CNN,
    "cuttlefish wide_resnet50_2": IMAGENET_CNN,
    "cuttlefish deit_base": {"paper_k": 1},
    "cuttlefish resmlp_s36": {"paper_k": 1},
    "cuttlefish bert_base": BERT,
    "cuttlefish resnet18 reference": CODE
    | {"paper_k": 5, "frobenius_decay": 1e-4, "untracked": ["layer2.0.conv1", "layer2.0.conv2"]},
    "cuttlefish vgg19 reference": CODE | {"paper_k": 4, "extra_bn": True},
    "cuttlefish resnet50 reference": CODE | IMAGENET_CNN | IMAGENET_CODE,
    "cuttlefish wide_resnet50_2 reference": CODE | IMAGENET_CNN | IMAGENET_CODE,
    "cuttlefish deit_base reference": CODE | TRANSFORMER | {"dense": ["*.attn.proj"]},
    "cuttlefish resmlp_s36 reference": CODE | TRANSFORMER | {"dense": ["*.linear_tokens"]},
    "cuttlefish bert_base reference": {name: value for name, value in CODE.items() if name != "floored"}
    | BERT
    | {"switch_epoch": 1, "rank_ratio": 0.45, "restart_lr": 4e-5}
    | {"dense": FEED_FORWARD, "freeze": FEED_FORWARD},
    "cuttlefish resnet18 paper": {"paper_k": 5, "stability": "paper", "frobenius_decay": 1e-4},
    "cuttlefish vgg19 paper": {"paper_k": 4, "stability": "paper", "frobenius_decay": 1e-4},
    "pufferfish resnet18": {"k": 3},
    "pufferfish vgg19": {"k": 9},
    "pufferfish deit_base": {"k": 25},
    "pufferfish resnet18 reference": PUFFERFISH_CODE | {"k": 3},
    "pufferfish vgg19 reference": PUFFERFISH_CODE | {"k": 9, "extra_bn": False},
    "pufferfish resnet50 reference": PUFFERFISH_CODE
    | {"k": 40, "extra_bn": False, "factorize_shortcuts": True, "switch_fraction": 0.11111},
    "pufferfish wide_resnet50_2 reference": PUFFERFISH_CODE
    | {"k": 40, "extra_bn": False, "factorize_shortcuts": True, "switch_fraction": 0.06667},
    "pufferfish deit_base reference": PUFFERFISH_CODE | {"k": 25, "first_bias": True},
    "pufferfish resmlp_s36 reference": PUFFERFISH_CODE | DENSE_TOKENS | {"first_bias": True},
    "si_fd resnet18 reference": {"decay_all": True},
    "si_fd vgg19 reference": {"decay_all": True, "rho": 0.0476074},
    "xnor resnet18 reference": {"decay_all": True, "extra_epoch": True},
    "lc resnet18 reference": LC_CODE,
    "lc vgg19 reference": LC_CODE | LC_VGG,
    "imp resnet18 reference": IMP_CODE,
    "imp vgg19 reference": IMP_CODE | {"ignore": ["classifier"]},
    "imp resnet50 reference": IMP_CODE,
    "imp resnet18 equal_budget": {"equal_budget": True},
    "grasp resnet18 reference": GRASP_CODE,
    "grasp vgg19 reference": GRASP_CODE,
    "grasp resnet50 reference": GRASP_CODE | GRASP_IMAGENET,
    "grasp resnet18 reference cifar100": GRASP_CODE | {"samples_per_class": 5, "num_iters": 2},
    "grasp vgg19 reference cifar100": GRASP_CODE,
    "eb resnet18 reference": EB_CODE,
    "eb resnet50 reference": EB_CODE | {"gamma_init": 1.0, "l1_retrain": False},
}
"""method, model, preset and data → all that differs from the method's defaults, but for `recipe`."""

CIFAR_RATES = {0: 0.1, 79: 0.1, 80: 0.01, 120: 0.001}
IMAGENET_RATES = {0: 0.1, 29: 0.1, 30: 0.01, 60: 0.001}
OWN = {
    "imp resnet18 reference": (160, 1e-4, CIFAR_RATES),
    "imp vgg19 reference": (160, 1e-4, CIFAR_RATES),
    "imp resnet50 reference": (90, 1e-4, {5: 0.4, 29: 0.4, 30: 0.04, 60: 0.004, 80: 0.0004}),
    "grasp resnet18 reference": (160, 1e-4, CIFAR_RATES),
    "grasp vgg19 reference": (160, 5e-4, CIFAR_RATES),
    "grasp resnet50 reference": (90, 1e-4, IMAGENET_RATES),
    "grasp resnet18 reference cifar100": (160, 1e-4, CIFAR_RATES),
    "grasp vgg19 reference cifar100": (160, 5e-4, CIFAR_RATES),
    "eb resnet18 reference": (160, 1e-4, CIFAR_RATES),
    "eb resnet50 reference": (90, 1e-4, IMAGENET_RATES),
    "lc resnet18 reference": (200, 2e-4, {0: 0.1, 99: 0.1, 100: 0.01, 150: 0.001}),
    "lc vgg19 reference": (300, 1e-3, {0: 0.05}),
}
"""Of those with a recipe of their own: epochs, weight decay, and learning rates by epoch."""


@pytest.mark.parametrize("method", DEFAULTS)
def test_defaults_that_the_authors_share(method):
    settings = load_settings(method)()
    assert {name: getattr(settings, name) for name in DEFAULTS[method]} == DEFAULTS[method]


@pytest.mark.parametrize("case", CHANGED)
def test_a_cell_changes_what_was_published_and_no_more(case):
    method, model, *others = case.split()
    words = [f"{group}={name}" for group, name in zip(("preset", "data"), others, strict=False)]
    settings = composed_settings(method, f"model={model}", *words)
    usual = load_settings(method)()
    names = [field.name for field in fields(usual) if field.name != "recipe"]
    changed = {
        name: getattr(settings, name) for name in names if getattr(settings, name) != getattr(usual, name)
    }
    assert changed == CHANGED[case]
    if case not in OWN:
        assert not getattr(settings, "recipe", None)
        return
    epochs, weight_decay, rates = OWN[case]
    recipe = own_recipe(RecipeConfig(), settings.recipe)
    schedule = build_schedule(recipe.schedule, recipe.epochs)
    assert (recipe.epochs, {epoch: schedule.lr(epoch) for epoch in rates}) == (epochs, pytest.approx(rates))
    assert recipe.optimizer == OptimizerConfig("sgd", 0.9, nesterov=method == "lc", weight_decay=weight_decay)


SGD = OptimizerConfig("sgd", 0.9, nesterov=False, weight_decay=1e-4)
CIFAR_WARM = {0: 0.1, 1: 0.24, 2: 0.38, 3: 0.52, 4: 0.66, 5: 0.8}
GLUE_RATES = {0: 2e-5, 1.5: 1e-5, 3: 0.0}
RECIPES = {
    "data=cifar10": (300, 1024, 0.0, None, SGD, CIFAR_WARM | {149: 0.8, 150: 0.08, 224: 0.08, 225: 0.008}),
    "data=svhn": (200, 1024, 0.0, None, SGD, CIFAR_WARM | {99: 0.8, 100: 0.08, 149: 0.08, 150: 0.008}),
    "data=imagenet": (90, 256, 0.1, None, SGD, {0: 0.1, 29: 0.1, 30: 0.01, 60: 1e-3, 80: 1e-4}),
    "data=imagenet recipe=deit": (
        300, 1024, 0.1, None, OptimizerConfig("adamw", weight_decay=0.05, betas=[0.9, 0.999], eps=1e-8),
        {0: 1e-6, 1: 2.008e-4, 150: 5.05e-4, 300: 1e-5},
    ),
    "data=glue/rte": (3, 32, 0.0, 1.0, OptimizerConfig("adamw", weight_decay=0.0), GLUE_RATES),
    "data=glue/mrpc": (5, 32, 0.0, 1.0, OptimizerConfig("adamw", weight_decay=0.0), {0: 2e-5, 2.5: 1e-5, 5: 0.0}),
}  # fmt: skip
"""Epochs, batch, label smoothing, the norm at which gradients are clipped, optimizer, learning rates by epoch."""


@pytest.mark.parametrize("words", RECIPES)
def test_the_recipes_are_those_of_the_public_code(words):
    recipe = compose_config(CONF, words.split()).recipe
    epochs, batch, smoothing, clip_norm, optimizer, rates = RECIPES[words]
    assert (recipe.epochs, recipe.batch_size, recipe.label_smoothing) == (epochs, batch, smoothing)
    assert (recipe.clip_norm, recipe.ema, recipe.accumulate) == (clip_norm, None, 1)
    used = optimizer if optimizer.name == "sgd" else recipe.optimizer
    assert (used, recipe.optimizer.name) == (recipe.optimizer, optimizer.name)
    assert recipe.optimizer.weight_decay == optimizer.weight_decay
    assert (recipe.optimizer.betas, recipe.optimizer.eps) == (optimizer.betas, optimizer.eps)
    schedule = build_schedule(recipe.schedule, recipe.epochs)
    assert {epoch: schedule.lr(epoch) for epoch in rates} == pytest.approx(rates, abs=1e-12)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_small_images_are_cropped_and_flipped_digits_too(name):
    data = compose_config(CONF, [f"data={name}"]).data
    assert (data.crop_padding, data.flip) == (4, True)
    assert (data.mean, data.std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), "ImageNet's"


def test_deit_augments_as_the_public_code():
    data = compose_config(CONF, ["data=imagenet", "recipe=deit", "model=deit_base"])
    given = data.data.settings
    expected = {
        "interpolation": "bicubic", "rand_augment": "rand-m9-mstd0.5-inc1", "erase": 0.25, "mixup": 0.8, "cutmix": 1.0,
        "switch": 0.5, "repeats": 3, "crop_scale": [0.08, 1.0],
    }  # fmt: skip
    assert {name: given[name] for name in expected} == expected
    assert data.data.image_size == 224 and data.model.arguments == {"drop_path_rate": 0.1}
