"""Every file of conf/ composes into a config that passes its checks, and says what the paper and the design
say.
"""

from math import floor

import pytest
import yaml

from cuttlefish.config.choices import GROUPS, OPTIONAL, list_choices
from cuttlefish.errors import CuttlefishError
from cuttlefish.methods.schedule import build_schedule
from tests.helpers.runs import CONF

CHOICES = {group: list(list_choices([CONF], group)) for group in GROUPS}


def rows() -> list[tuple[str, ...]]:
    """Every model with every data set, while methods, debug modes, trainers and loggers take turns."""
    debug = [None, *CHOICES["debug"]]
    chosen = []
    for i, model in enumerate(CHOICES["model"]):
        for j, data in enumerate(CHOICES["data"]):
            method = CHOICES["method"][(i * len(CHOICES["data"]) + j) % len(CHOICES["method"])]
            rest = (
                debug[(i + j) % len(debug)],
                CHOICES["trainer"][(i + j) % 3],
                CHOICES["logger"][j % len(CHOICES["logger"])],
            )
            chosen.append((model, data, method, *rest))
    return chosen


def overrides(
    model: str, data: str, method: str, debug: str | None, trainer: str = "default", logger: str = "default"
) -> list[str]:
    named = ["model.name=resnet18"] if model in ("timm", "torchvision", "hf") else []
    chosen = [f"model={model}", f"data={data}", f"method={method}", f"trainer={trainer}", f"logger={logger}"]
    return [*chosen, *named, *([f"debug={debug}"] if debug else [])]


def lrs(config, epochs: list[int]) -> list[float]:
    schedule = build_schedule(config.recipe.schedule, config.recipe.epochs)
    return [round(schedule.lr(epoch), 4) for epoch in epochs]


@pytest.mark.parametrize("choice", rows(), ids=lambda choice: "-".join(map(str, choice)))
def test_every_choice_composes_with_the_others(composed, choice):
    config = composed(*overrides(*choice))
    folder, _, name = choice[1].rpartition("/")
    assert config.data.name == name and config.data.kind == (folder or name)
    assert config.method["name"] == choice[2]
    assert config.scale == ("smoke" if choice[3] == "smoke" else "free")
    assert config.experiment_name == ("debug" if choice[3] else None)


@pytest.mark.parametrize("recipe", CHOICES["recipe"])
def test_every_recipe_drops_its_rate_within_the_run(composed, recipe):
    config = composed(f"recipe={recipe}").recipe
    drops = [floor(fraction * config.epochs) for fraction in config.schedule.milestones]
    assert config.name == recipe
    assert drops == sorted(set(drops))
    assert min(drops) >= config.schedule.warmup_epochs
    assert max(drops) < config.epochs


def test_every_group_is_in_the_defaults_list_and_has_a_folder():
    listed = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    named = {key: value for entry in listed if isinstance(entry, dict) for key, value in entry.items()}
    groups = {key: value for key, value in named.items() if " " not in key}
    folders = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert set(groups) == set(GROUPS) == folders - {"local", "hydra", "cell"}
    assert {key for key, value in groups.items() if value is None} == set(OPTIONAL)


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ([], {"wandb: offline"}),
        (["logger=quiet"], set()),
        (["logger=csv"], {"csv"}),
        (["logger=[tensorboard,csv]"], {"csv", "tensorboard"}),
        (["logger=[wandb,csv]", "logger.wandb.mode=online"], {"csv", "wandb: online"}),
        (["logger=many"], {"csv", "tensorboard", "wandb: offline"}),
    ],
)
def test_several_loggers_can_be_chosen(composed, words, chosen):
    logger = composed(*words).logger
    on = {name for name in ("csv", "tensorboard") if getattr(logger, name)}
    on |= {f"wandb: {logger.wandb.mode}"} - {"wandb: disabled"}
    assert on == chosen
    assert logger.console == logger.plots == (words != ["logger=quiet"])


@pytest.mark.parametrize("experiment", CHOICES["experiment"])
def test_every_experiment_composes(composed, experiment):
    config = composed(f"experiment={experiment}")
    if experiment.startswith("demo/"):
        assert config.scale == "free" and config.data.kind == "digits"
        both = [composed(f"experiment=demo/{name}") for name in ("full_rank", "cuttlefish")]
        assert both[0].model == both[1].model and both[0].recipe == both[1].recipe, "the method alone differs"
        return
    if not experiment.startswith("reduced/"):  # a row of a table or figure, by itself at the paper's scale
        found = (config.scale, config.model.width, config.recipe.epochs, config.data.images_per_class)
        assert found == ("paper", None, 90 if experiment == "table2" else 300, None)
        assert config.experiment_name.startswith(("table", "figure"))
        assert config.experiment_name.count("/") == 1
        return
    assert config.scale == "reduced"
    assert config.experiment_name == f"reduced/{config.model.name}-{config.method['name']}"
    assert experiment in (f"reduced/{config.model.name}_{config.method['name']}", "reduced/cell")


@pytest.mark.parametrize("model", ["resnet18", "vgg19"])
def test_the_reduced_setting_is_the_design_s(composed, model):
    config = composed(f"experiment=reduced/{model}_cuttlefish")
    found = (config.data.kind, config.data.images_per_class, config.model.name, config.model.width)
    assert found == ("cifar10", 1000, model, 16)
    found = (config.recipe.epochs, config.recipe.batch_size, config.recipe.optimizer.weight_decay)
    assert found == (30, 128, 1e-4)
    assert lrs(config, [0, 1, 2, 14, 15, 21, 22, 29]) == [0.0333, 0.0667, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    assert config.method["k"] == "paper" and config.method["preset"] == "default"
    assert config.recipe.optimizer == composed("recipe=cifar").recipe.optimizer


@pytest.mark.parametrize(
    ("chosen", "recipe"),
    [
        ([], "cifar"),
        (["data=svhn"], "svhn"),
        (["data=digits"], "digits"),
        (["data=synthetic"], "synthetic"),
        (["data=svhn", "recipe=cifar"], "cifar"),
        (["recipe=reduced", "data=digits", "method=cuttlefish"], "reduced"),
        (["experiment=reduced/cell"], "reduced"),
        (["experiment=reduced/cell", "scale=free", "data=svhn"], "reduced"),
    ],
)
def test_data_brings_its_recipe_unless_one_is_named(composed, chosen, recipe):
    assert composed(*chosen).recipe.name == recipe


def test_every_key_of_the_schema_can_be_set_without_a_plus(composed):
    words = "model.width=8 data.train_images=4 data=synthetic trainer.threads=1 fork_from=x"
    config = composed(*words.split(), "logger.wandb.tags=[a]")
    found = (config.model.width, config.data.train_images, config.trainer.threads, config.fork_from)
    assert found == (8, 4, 1, "x")
    timm = composed(
        "model=timm",
        "model.name=deit_tiny_patch16_224",
        "model.arguments.img_size=32",
        "model.arguments.depth=2",
    )
    assert timm.model.arguments == {"img_size": 32, "depth": 2}


def test_smoke_is_small_and_narrows_only_the_suite_s_own_models(composed):
    config = composed("debug=smoke", "method=cuttlefish")
    assert (config.recipe.epochs, config.trainer.max_steps, config.model.width) == (4, 3, 8)
    assert config.method["switch_epoch"] == 2 < config.recipe.epochs and config.method["keep_dense"] is False
    for words in ("experiment=demo/cuttlefish", "model=vgg19"):
        assert composed(words, "debug=smoke").model.width == 8
    assert composed("debug=smoke", "model=timm", "model.name=resnet18").model.width is None
    assert composed("debug=smoke", "method=cuttlefish", "method.switch_epoch=1").method["switch_epoch"] == 1


def test_a_debugged_experiment_is_no_evidence(composed):
    for debug, scale in {"smoke": "smoke", "profile": "free"}.items():
        config = composed("experiment=reduced/vgg19_cuttlefish", f"debug={debug}")
        assert (config.scale, config.experiment_name) == (scale, "debug")


def test_interpolations_are_resolved_or_refused(composed):
    assert composed("experiment_name=x-${seed}", "seed=3").experiment_name == "x-3"
    with pytest.raises(CuttlefishError, match="^experiment_name: Interpolation key 'sed' not found$"):
        composed("experiment_name=x-${sed}")
