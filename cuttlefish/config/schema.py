"""The typed configuration of one run, importable without torch and Hydra.

Every default is neutral ("as before"), so that a new field changes no existing run key (see `identity.py`).
The choices for users are in `conf/`. A field's range is in its annotation, rules between fields are in
`contradictions` (`cuttlefish.limits`). Checks that need torch, the model or the data follow later, before
training.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Annotated, Any, Literal

from cuttlefish.config.recipe import RecipeConfig
from cuttlefish.limits import Checked, Count, Each, Name, Place, Within

OptionalName = Annotated[str | None, Name()]
OptionalPlace = Annotated[str | None, Place()]
OptionalNumber = Annotated[int | None, Within(1, 10**7)]
MOST_BYTES = 2**33
"""The most memory, in bytes, for generated images."""


@dataclass(frozen=True)
class ModelConfig(Checked):
    name: Annotated[str, Name()] = "resnet18"
    source: Literal["suite", "timm", "torchvision", "transformers"] = "suite"
    width: Annotated[int | None, Within(1, 1024)] = None
    """Base channel count of the suite's own networks (None: 64, as in the paper)."""
    pretrained: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)
    """Further keyword arguments of the timm or torchvision constructor, or of transformers' config (then
    `model_type` names its kind)."""
    checkpoint: OptionalPlace = None
    """Where transformers finds an encoder's config, weights and tokenizer: a name on the hub, a folder, or
    package:PACKAGE/FOLDER. None: the network of `arguments` with a tokenizer of characters."""
    folder: OptionalPlace = None
    """A copy of the checkpoint's files on this machine."""
    revision: OptionalName = None
    """Commit, tag or branch of the hub's repository of pretrained weights; None: its newest."""

    def contradictions(self) -> Iterator[str]:
        if self.source == "transformers":
            yield from self._of_transformers()
        elif self.checkpoint is not None or self.folder is not None:
            key = "folder" if self.checkpoint is None else "checkpoint"
            yield f"{key} is for text models of transformers (model=hf, model=bert_base, …)"
        elif self.revision is not None and not (self.source == "timm" and self.pretrained):
            yield "revision is of weights on the hub, which timm's have with model.pretrained=true"
        if self.source != "suite" and self.width is not None:
            yield f"width applies to the suite's own networks; for {self.source} choose another model.name"
        if self.source == "suite" and self.pretrained:
            yield f"pretrained: the suite has no pretrained {self.name}; use model=timm or model=torchvision"
        if self.source == "suite" and self.arguments:
            yield "arguments are for timm and torchvision models; the suite's networks take model.width only"

    def _of_transformers(self) -> Iterator[str]:
        nowhere = self.checkpoint is None and self.folder is None
        if self.pretrained and nowhere:
            yield f"pretrained: {self.name} has no checkpoint; give model.checkpoint or model.folder"
        if self.revision is not None and (nowhere or self.folder is not None):
            yield "revision is a commit on the hub; it goes with model.checkpoint, without model.folder"
        if nowhere and "model_type" not in self.arguments:
            yield "checkpoint or arguments.model_type (bert, distilbert, …) must say what network it is"


@dataclass(frozen=True)
class DataConfig(Checked):
    name: Annotated[str, Name()] = "cifar10"
    kind: Annotated[str, Name()] = "cifar10"
    """Name of a data set in `cuttlefish/tasks/sets/`."""
    root: OptionalPlace = None
    """Folder of the data files; None: environment variable CUTTLEFISH_DATA, else ./data."""
    download: bool = False
    verify: bool = True
    """Require the published checksums. Needed for CIFAR, whose files are pickles."""
    images_per_class: OptionalNumber = None
    """Number of training images per class (a reduced set): the first ones in file order."""
    images_seed: Annotated[int | None, Within(0, 2**32, "[)")] = None
    """Draw the `images_per_class` with this seed instead, for data sets that are sorted."""
    evaluate_on: Literal["test", "validation"] = "test"
    """validation: evaluate on a fixed, held-out tenth of the training set instead of the test set."""
    crop_padding: Annotated[int, Within(0, 128)] = 0
    flip: bool = False
    mean: Annotated[list[float], Count(3), Each(Within(-1000, 1000))] = field(
        default_factory=lambda: [0.5, 0.5, 0.5]
    )
    std: Annotated[list[float], Count(3), Each(Within(0, 1000, "(]"))] = field(
        default_factory=lambda: [0.5, 0.5, 0.5]
    )
    image_size: Annotated[int | None, Within(1, 4096)] = None
    """Side length in pixels of digits (enlarged) and of synthetic images."""
    classes: Annotated[int | None, Within(2, 10_000)] = None
    """Number of classes of synthetic data."""
    train_images: OptionalNumber = None
    test_images: OptionalNumber = None
    """Numbers of training and test images of synthetic data."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The keys of `data` that only this kind has, written beside the others (`to_dict`, `load_config`). Their
    schema is the `Settings` of its `DataSet`."""

    def contradictions(self) -> Iterator[str]:
        if self.images_seed is not None and self.images_per_class is None:
            yield "images_seed draws the images of data.images_per_class; give that too"
        images = max(self.train_images or 1000, self.test_images or 1000)
        size = 3 * images * (self.image_size or 32) ** 2
        if size > MOST_BYTES:
            yield f"image_size and the number of images ask for {size / 2**30:.0f} GiB; choose smaller ones"


@dataclass(frozen=True)
class TrainerConfig(Checked):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Annotated[int, Within(1, 1024)] = 1
    """Number of processes that train together on this machine, one per GPU."""
    precision: Literal["fp32", "tf32", "bf16", "fp64"] = "fp32"
    """fp64 is for comparing runs, not for training."""
    sync_bn: bool = False
    """Compute batch norm's statistics over the global batch instead of each process's share."""
    channels_last: bool = True
    compile: bool = False
    recompute: bool = False
    """Activation checkpointing, for models of timm and transformers: keep few activations and recompute the
    others in the backward pass."""
    fsdp: bool = False
    """Refused: parameters are not sharded over processes."""
    deterministic: bool = False
    threads: Annotated[int | None, Within(1, 1024)] = None
    checkpoint_epochs: Annotated[int, Within(1, 10**6)] = 1
    """Epochs between checkpoints (one is also written at the end of every phase)."""
    checkpoint_minutes: Annotated[float, Within(0, 10**6)] = 0.0
    """Least time between checkpoints after epochs, and the interval within a long epoch."""
    timeout_minutes: Annotated[float, Within(0, 10**5, "(]")] = 10.0
    """Time-out for one process to wait for another, after which the job fails."""
    max_restarts: Annotated[int, Within(0, 1000)] = 0
    """Restarts from the last checkpoint after one of several processes died."""
    eval_epochs: Annotated[int, Within(1, 10**6)] = 1
    max_steps: OptionalNumber = None
    """Maximum number of steps per epoch (debugging)."""
    max_eval_batches: OptionalNumber = None
    overfit: bool = False
    """Train and evaluate on a single batch (debugging)."""
    torch_profile: bool = False
    """Write a torch profiler trace of the first steps into the run folder (debugging)."""

    def contradictions(self) -> Iterator[str]:
        if self.precision == "tf32" and self.device == "cpu":
            yield "precision=tf32 needs trainer.device=cuda; on the CPU use fp32 or bf16"
        if self.fsdp:
            yield (
                "fsdp=true: parameters are not sharded, for a switch changes them on all processes at once; "
                "trainer.devices uses DDP, and trainer.recompute and recipe.accumulate save memory"
            )
        if self.overfit and self.devices > 1:
            yield f"overfit trains on one batch, which trainer.devices={self.devices} cannot share; use 1"


@dataclass(frozen=True)
class WandbConfig(Checked):
    mode: Literal["offline", "online", "disabled"] = "disabled"
    project: Annotated[str, Name()] = "cuttlefish"
    entity: OptionalName = None
    group: OptionalName = None
    tags: Annotated[list[str], Each(Name(64))] = field(default_factory=list)


@dataclass(frozen=True)
class LoggerConfig(Checked):
    console: bool = True
    plots: bool = True
    csv: bool = False
    """Write metrics.csv into the run folder, one row per epoch."""
    tensorboard: bool = False
    wandb: WandbConfig = field(default_factory=WandbConfig)


@dataclass(frozen=True)
class Config(Checked):
    """Config of one run. `method` is a plain mapping, whose schema is the `Settings` of the method."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    method: dict[str, Any] = field(default_factory=lambda: {"name": "full_rank"})
    seed: Annotated[int, Within(0, 2**32, "[)")] = 0
    scale: Literal["smoke", "reduced", "paper", "free"] = "free"
    """Setting of the run: the paper's, the suite's fixed reduced one, a smoke test, or free."""
    experiment_name: OptionalPlace = None
    run_dir: OptionalPlace = None
    runs_root: Annotated[str, Place()] = "runs"
    fork_from: OptionalPlace = None
    """Run folder or checkpoint from whose state before the switch this run starts."""

    def contradictions(self) -> Iterator[str]:
        name, experiment = self.method.get("name"), PurePath(self.experiment_name or "")
        if not isinstance(name, str) or not name:
            yield "method.name must name a method, as in method=cuttlefish"
        if experiment.is_absolute() or ".." in experiment.parts:
            yield f"experiment_name is a folder below runs_root, which {self.experiment_name!r} would leave"
        if self.recipe.batch_size < self.trainer.devices:
            yield (
                f"recipe.batch_size={self.recipe.batch_size} is the batch of all devices and cannot feed "
                f"trainer.devices={self.trainer.devices}"
            )
        yield from self._not_evidence()

    def _not_evidence(self) -> Iterator[str]:
        """Yield reasons why the run cannot have the scale `paper` or `reduced`."""
        if self.scale not in ("paper", "reduced"):
            return
        for key in ("max_steps", "max_eval_batches", "overfit", "torch_profile"):
            if getattr(self.trainer, key):
                yield f"trainer.{key} is for debugging and scale={self.scale} is evidence; use scale=free"
        data = self.data
        chosen = (data.kind, data.images_per_class, data.images_seed)
        if self.scale == "reduced" and chosen not in (("cifar10", 1000, None), ("glue", None, None)):
            yield (
                "scale=reduced means data=cifar10 with data.images_per_class=1000, or a whole GLUE task, "
                "so that its records compare; use scale=free"
            )
        if self.scale == "paper" and (
            data.images_per_class is not None
            or data.kind in ("digits", "synthetic", "folder", "hfds", "text")
        ):
            yield (
                "scale=paper means the whole of one of the paper's data sets, "
                f"not this choice of {data.name}; use scale=free"
            )
