"""What no single field can tell: ranges and contradictions in a config, each refused with one sentence.

What needs torch, the model or the data on disk is checked later, by those who have them, but still before training.
"""

from pathlib import PurePath

from cuttlefish.config.schema import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    RecipeConfig,
    ScheduleConfig,
    TrainerConfig,
)
from cuttlefish.errors import CuttlefishError


def check_config(config: Config) -> None:
    """Raise CuttlefishError for the first value out of range or contradiction."""
    check_model(config.model)
    check_data(config.data)
    check_recipe(config.recipe)
    check_trainer(config.trainer)
    check_run(config)
    check_scale(config)


def check_model(model: ModelConfig) -> None:
    _require(bool(model.name), "model.name must not be empty")
    _at_least(1, {"model.width": model.width})
    if model.source == "suite":
        _require(
            not model.pretrained,
            f"model.pretrained: the suite has no pretrained {model.name}; use model=timm or model=torchvision",
        )
        _require(
            not model.arguments,
            "model.arguments go to timm and torchvision models; the suite's own networks take model.width only",
        )
    else:
        _require(
            model.width is None,
            f"model.width applies to the suite's own networks; for {model.source} choose another model.name",
        )


def check_data(data: DataConfig) -> None:
    _at_least(0, {"data.crop_padding": data.crop_padding})
    sizes = {"images_per_class": data.images_per_class, "image_size": data.image_size}
    made = {"classes": data.classes, "train_images": data.train_images, "test_images": data.test_images}
    _at_least(1, {f"data.{key}": value for key, value in (sizes | made).items()})
    _at_least(0, {"data.images_seed": data.images_seed})
    _require(
        data.images_seed is None or data.images_per_class is not None,
        "data.images_seed draws the images of data.images_per_class; give that too",
    )
    for key, values in {"mean": data.mean, "std": data.std}.items():
        _require(len(values) == 3, f"data.{key} must have 3 values, one a colour channel, not {len(values)}")
    _require(min(data.std) > 0, f"data.std must be above 0 in every channel, not {data.std}")


def check_recipe(recipe: RecipeConfig) -> None:
    _at_least(
        1,
        {
            "recipe.epochs": recipe.epochs,
            "recipe.batch_size": recipe.batch_size,
            "recipe.eval_batch_size": recipe.eval_batch_size,
        },
    )
    _require(
        0 <= recipe.label_smoothing < 1,
        f"recipe.label_smoothing must be in [0, 1), not {recipe.label_smoothing}",
    )
    check_optimizer(recipe.optimizer, "recipe.optimizer")
    check_schedule(recipe.schedule, recipe.epochs, "recipe.schedule")


def check_optimizer(optimizer: OptimizerConfig, where: str = "optimizer") -> None:
    """Also for a method's own optimizer; `where` is how its keys are called."""
    _at_least(0, {f"{where}.weight_decay": optimizer.weight_decay})
    _require(0 <= optimizer.momentum < 1, f"{where}.momentum must be in [0, 1), not {optimizer.momentum}")
    nesterov = not optimizer.nesterov or (optimizer.name == "sgd" and optimizer.momentum > 0)
    _require(nesterov, f"{where}.nesterov needs name=sgd and a momentum above 0")
    betas = len(optimizer.betas) == 2 and all(0 <= beta < 1 for beta in optimizer.betas)
    _require(betas, f"{where}.betas must be two numbers in [0, 1), not {optimizer.betas}")
    _require(optimizer.eps > 0, f"{where}.eps must be above 0, not {optimizer.eps}")


def check_schedule(schedule: ScheduleConfig, epochs: int, where: str = "schedule") -> None:
    """Also for a method's own schedule of `epochs` epochs; `where` is how its keys are called."""
    for key, lr in {"base_lr": schedule.base_lr, "peak_lr": schedule.peak_lr}.items():
        _require(lr > 0, f"{where}.{key} must be above 0, not {lr}")
    _at_least(0, {f"{where}.warmup_epochs": schedule.warmup_epochs})
    fits = schedule.warmup_epochs <= epochs
    _require(
        fits,
        f"{where}.warmup_epochs={schedule.warmup_epochs} does not fit into {epochs} epochs; choose fewer, or more epochs",
    )
    fractions = schedule.milestones
    ascending = (
        all(low < high for low, high in zip([0.0, *fractions], fractions, strict=False))
        and max(fractions, default=1) <= 1
    )
    _require(
        ascending, f"{where}.milestones must be ascending fractions of the run in (0, 1], not {fractions}"
    )
    _require(0 < schedule.gamma <= 1, f"{where}.gamma must be in (0, 1], not {schedule.gamma}")
    _require(
        0 <= schedule.min_lr <= schedule.peak_lr,
        f"{where}.min_lr must be in [0, peak_lr], not {schedule.min_lr}",
    )


def check_trainer(trainer: TrainerConfig) -> None:
    counts = ("devices", "threads", "checkpoint_epochs", "eval_epochs", "max_steps", "max_eval_batches")
    _at_least(1, {f"trainer.{key}": getattr(trainer, key) for key in counts})
    _at_least(
        0,
        {
            "trainer.checkpoint_minutes": trainer.checkpoint_minutes,
            "trainer.max_restarts": trainer.max_restarts,
        },
    )
    _require(
        trainer.timeout_minutes > 0, f"trainer.timeout_minutes must be above 0, not {trainer.timeout_minutes}"
    )
    tf32 = trainer.precision == "tf32" and trainer.device == "cpu"
    _require(not tf32, "trainer.precision=tf32 needs trainer.device=cuda; on the CPU use fp32 or bf16")
    single = not (trainer.overfit and trainer.devices > 1)
    _require(
        single,
        f"trainer.overfit trains on one batch, which cannot be shared by trainer.devices={trainer.devices}; use 1",
    )


def check_run(config: Config) -> None:
    _require(0 <= config.seed < 2**32, f"seed must be in [0, 2**32), not {config.seed}")
    batch, devices = config.recipe.batch_size, config.trainer.devices
    _require(
        batch >= devices,
        f"recipe.batch_size={batch} is the batch of all devices together and cannot feed trainer.devices={devices}",
    )
    name = config.method.get("name")
    _require(isinstance(name, str) and bool(name), "method.name must name a method, as in method=cuttlefish")
    for key in ("runs_root", "run_dir", "experiment_name", "fork_from"):
        _require(getattr(config, key) != "", f"{key} must not be empty")
    inside = config.experiment_name is None or _stays_inside(config.experiment_name)
    _require(
        inside,
        f"experiment_name names a folder below runs_root, which {config.experiment_name!r} would leave",
    )


def check_scale(config: Config) -> None:
    """A run that stands for the paper or for the reduced setting must not be a debugging run, nor one on other data."""
    if config.scale not in ("paper", "reduced"):
        return
    for key in ("max_steps", "max_eval_batches", "overfit", "torch_profile"):
        debugging = bool(getattr(config.trainer, key))
        _require(
            not debugging,
            f"trainer.{key} is for debugging and a run with scale={config.scale} is evidence; use scale=free",
        )
    data = config.data
    if config.scale == "reduced":
        same = data.kind == "cifar10" and data.images_per_class == 1000
        _require(
            same and data.images_seed is None,
            "scale=reduced means data=cifar10 with data.images_per_class=1000, so that its records compare; use scale=free",
        )
    else:
        whole = data.images_per_class is None and data.kind not in ("digits", "synthetic")
        _require(
            whole,
            f"scale=paper means the whole of one of the paper's data sets, not this choice of {data.name}; use scale=free",
        )


def _stays_inside(name: str) -> bool:
    return not PurePath(name).is_absolute() and ".." not in PurePath(name).parts


def _at_least(minimum: int, values: dict[str, float | None]) -> None:
    for key, value in values.items():
        _require(value is None or value >= minimum, f"{key} must be at least {minimum}, not {value}")


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise CuttlefishError(sentence)
