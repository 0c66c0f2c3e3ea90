"""The typed configuration of one run. Imports neither torch nor Hydra: a machine without them can read a run's config.

Every field's default is the neutral one ("as before"), so that adding a field never changes an existing run key
(see `identity.py`). The values people choose between live in `conf/`.
"""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class ModelConfig:
    name: str = "resnet18"
    source: Literal["suite", "timm", "torchvision"] = "suite"
    width: int | None = None
    """Base channel count of the suite's own networks (64 in the paper, and where None)."""
    pretrained: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)
    """Further keyword arguments of the timm or torchvision constructor."""


@dataclass(frozen=True)
class DataConfig:
    name: str = "cifar10"
    kind: str = "cifar10"
    """One of the data sets in `cuttlefish/data/sets/`."""
    root: str | None = None
    """Folder of the data files; None: the environment's CUTTLEFISH_DATA, else ./data."""
    download: bool = False
    verify: bool = True
    """Refuse files whose checksum is not the published one. Not possible for CIFAR, whose files are pickles."""
    images_per_class: int | None = None
    """Only so many training images of each class (a reduced set): the first ones in the order of the file."""
    images_seed: int | None = None
    """Draw the `images_per_class` with this seed instead, for data sets that are sorted in some way."""
    evaluate_on: Literal["test", "validation"] = "test"
    """validation: a fixed tenth of the training set is held out and evaluated on instead of the test set."""
    crop_padding: int = 0
    flip: bool = False
    mean: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    std: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    image_size: int | None = None
    """Side length to which digits are enlarged, or at which synthetic images are made."""
    classes: int | None = None
    """Number of classes of synthetic data."""
    train_images: int | None = None
    test_images: int | None = None
    """Sizes of synthetic data."""


@dataclass(frozen=True)
class OptimizerConfig:
    name: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8


@dataclass(frozen=True)
class ScheduleConfig:
    name: Literal["milestones", "cosine"] = "milestones"
    base_lr: float = 0.1
    """Learning rate of epoch 0, and of the switch epoch when the warm-up is repeated."""
    peak_lr: float = 0.1
    warmup_epochs: int = 0
    milestones: list[float] = field(default_factory=lambda: [0.5, 0.75])
    """As fractions of all epochs (epoch = floor(fraction * epochs))."""
    gamma: float = 0.1
    min_lr: float = 0.0


@dataclass(frozen=True)
class RecipeConfig:
    name: str = "cifar"
    epochs: int = 300
    batch_size: int = 1024
    """Global, over all devices."""
    eval_batch_size: int = 1000
    label_smoothing: float = 0.0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)


@dataclass(frozen=True)
class TrainerConfig:
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    """Processes that train together on this machine, one a GPU."""
    precision: Literal["fp32", "tf32", "bf16", "fp64"] = "fp32"
    """fp64 is for comparing runs with each other, not for training."""
    sync_bn: bool = False
    """Batch norm's statistics over the batch of all processes instead of each one's share."""
    channels_last: bool = True
    compile: bool = False
    deterministic: bool = False
    threads: int | None = None
    checkpoint_epochs: int = 1
    """Write a checkpoint after every so many epochs (and at the end of every phase)."""
    checkpoint_minutes: float = 0.0
    """At least so long from one epoch's checkpoint to the next, however short the epochs, and at most so long within an epoch."""
    timeout_minutes: float = 10.0
    """Several processes: one that waits so long for another gives up, and with it the job."""
    max_restarts: int = 0
    """Several processes on this machine: how often a job one of whose processes died begins again from its last checkpoint."""
    eval_epochs: int = 1
    max_steps: int | None = None
    """At most so many steps an epoch (debugging)."""
    max_eval_batches: int | None = None
    overfit: bool = False
    """Train and evaluate on one and the same batch (debugging)."""
    torch_profile: bool = False
    """Write a torch profiler trace of the first steps into the run folder (debugging)."""


@dataclass(frozen=True)
class WandbConfig:
    mode: Literal["offline", "online", "disabled"] = "disabled"
    project: str = "cuttlefish"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LoggerConfig:
    console: bool = True
    plots: bool = True
    csv: bool = False
    """metrics.csv in the run folder: a row for each epoch."""
    tensorboard: bool = False
    wandb: WandbConfig = field(default_factory=WandbConfig)


@dataclass(frozen=True)
class Config:
    """One run. `method` is a plain mapping: its schema is the `Settings` of the method's own file."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    method: dict[str, Any] = field(default_factory=lambda: {"name": "full_rank"})
    seed: int = 0
    scale: Literal["smoke", "reduced", "paper", "free"] = "free"
    """What the run may stand for: paper (the paper's setting), reduced (the suite's fixed small setting), smoke, or free."""
    experiment_name: str | None = None
    run_dir: str | None = None
    runs_root: str = "runs"
    fork_from: str | None = None
    """A run folder or a checkpoint whose state before the switch this run starts from."""
