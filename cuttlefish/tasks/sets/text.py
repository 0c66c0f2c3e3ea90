"""GLUE and files of a user's own: sentences, or pairs of them, with classes or values."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from cuttlefish.config.schema import Config, DataConfig, OptionalName, OptionalPlace
from cuttlefish.errors import CuttlefishError
from cuttlefish.limits import Checked, Each, Name, Within
from cuttlefish.tasks.files import data_root
from cuttlefish.tasks.registry import DataSet
from cuttlefish.tasks.split import some_of_each_class, validation_split
from cuttlefish.tasks.text import glue
from cuttlefish.tasks.text.examples import Examples
from cuttlefish.tasks.text.measures import CLASSIFICATION, REGRESSION
from cuttlefish.tasks.text.own_files import load_own

if TYPE_CHECKING:
    import torch

    from cuttlefish.tasks.text.task import TextTask

MaxLength = Annotated[int | None, Within(4, 100_000)]
"""The most tokens of an input; None: as many as the model has positions."""
State = tuple[tuple[str, int, int], ...]
"""Path, size and time of files, so that a run reads and checks them once."""


@dataclass(frozen=True)
class Loaded:
    """A data set, read and checked.

    Attributes:
        splits: The training set, then the evaluation sets.
        classes: Number of classes; None for a regression.
        metrics: Names of the metrics, the headline first.
        names: The evaluation sets' names in metrics; the first is "".
    """

    splits: Sequence[Examples]
    classes: int | None
    metrics: Sequence[str]
    names: Sequence[str] = ("",)
    revisions: Mapping[str, str] = field(default_factory=dict)
    """Repository on the hub -> commit that they were read at."""

    def digest(self) -> str:
        content = " ".join([str(self.classes), *(split.digest() for split in self.splits)])
        return hashlib.sha256(content.encode()).hexdigest()


class TextSet(DataSet):
    """Sentences of any origin; `load` returns them."""

    takes = frozenset({"images_per_class", "images_seed"})

    def load(self, config: DataConfig) -> Loaded:
        raise NotImplementedError

    def digest(self, config: DataConfig) -> str:
        return self.load(config).digest()

    def task(self, config: Config, device: torch.device, dtype: torch.dtype) -> TextTask:
        from cuttlefish.models.text import tokenizer_for  # both import torch
        from cuttlefish.tasks.text.task import TextTask, check_tokenizer

        data, loaded = config.data, self.load(config.data)
        tokenizer = tokenizer_for(config.model)
        max_length = self.settings(data).max_length or tokenizer.max_positions
        check_tokenizer(tokenizer, config.model.name, max_length)
        train, evaluation = _splits(loaded, data)
        task = TextTask(
            data.name, loaded.digest(), train, evaluation, classes=loaded.classes, metrics=loaded.metrics,
            tokenizer=tokenizer, max_length=max_length, device=device, dtype=dtype,
        )  # fmt: skip
        task.revisions = loaded.revisions
        return task


class Glue(TextSet):
    """`data=glue/rte`: the task is the config's name."""

    title = "GLUE"

    @dataclass(frozen=True)
    class Settings(Checked):
        max_length: MaxLength = None
        revision: OptionalName = None
        """Commit, tag or branch of GLUE on the hub, for data.download=true; None: the newest."""

    def load(self, config: DataConfig) -> Loaded:
        folder, revision = data_root(config) / "glue", self.settings(config).revision
        if revision is not None and (not config.download or self._files_are_there(config)):
            why = "its files are on this machine" if config.download else "data.download is false"
            raise CuttlefishError(f"data.revision={revision} is of GLUE on the hub, but {why}; leave it out")
        files = glue.split_files(glue.glue_task(config.name), folder / glue.glue_task(config.name).folder)
        return _glue(config.name, folder, config.verify, config.download, revision, _state(files))

    def published_digest(self, config: DataConfig) -> str:
        """Return the digest; without the files, that of the task's known copy, or one that no run has."""
        if self._files_are_there(config):
            return self.digest(config)
        return glue.DIGESTS.get(config.name, f"unknown: {config.name} is not on this machine")

    def is_there(self, config: DataConfig) -> bool:
        return config.download or self._files_are_there(config)

    def _files_are_there(self, config: DataConfig) -> bool:
        task = glue.glue_task(config.name)
        files = glue.split_files(task, data_root(config) / "glue" / task.folder)
        return all(path.is_file() for path in files)


class OwnText(TextSet):
    """`data=text data.train=... data.eval=...`"""

    title = "Text files"

    @dataclass(frozen=True)
    class Settings(Checked):
        train: OptionalPlace = None
        eval: OptionalPlace = None
        regression: bool = False
        """Predict numbers instead of classes."""
        metric: Literal["accuracy", "f1", "matthews", "spearman", "pearson"] | None = None
        """The headline metric; None: accuracy, or spearman for a regression."""
        columns: Annotated[list[str], Each(Name())] = field(default_factory=list)
        """The one or two columns of sentences; empty: all but the label's."""
        label_column: OptionalName = None
        """The column of labels; None: the one called label, score, target or class."""
        max_length: MaxLength = None

        def contradictions(self) -> Iterator[str]:
            if self.metric in CLASSIFICATION and self.regression:
                yield f"metric={self.metric} is for classes, and data.regression=true predicts numbers"
            if self.metric in REGRESSION and not self.regression:
                yield f"metric={self.metric} needs numbers, and these are classes; set data.regression=true"

    def load(self, config: DataConfig) -> Loaded:
        settings = self.settings(config)
        state = _state([Path(path) for path in (settings.train, settings.eval) if path])
        splits, classes = _own(
            settings.train, settings.eval, settings.regression, tuple(settings.columns),
            settings.label_column, state,
        )  # fmt: skip
        possible = (
            REGRESSION if not classes else CLASSIFICATION if len(classes) == 2 else ("accuracy", "matthews")
        )
        if settings.metric and settings.metric not in possible:
            raise CuttlefishError(
                f"data.metric={settings.metric} is for two classes, and there are {len(classes)}"
            )
        metrics = dict.fromkeys([settings.metric or possible[0], *possible])
        return Loaded(splits, len(classes) or None, tuple(metrics))

    def is_there(self, config: DataConfig) -> bool:
        settings = self.settings(config)
        return all(path and Path(path).expanduser().is_file() for path in (settings.train, settings.eval))


@lru_cache(maxsize=4)
def _glue(
    name: str, folder: Path, verify: bool, download: bool, revision: str | None, state: State
) -> Loaded:
    task = glue.glue_task(name)
    names = ["", *(name.removeprefix("dev_") for name in task.evaluation[1:])]
    on_disk, commits = len(state) == 1 + len(task.evaluation), {}
    if download and not on_disk:
        splits, commits = glue.load_hub(task, revision)
    else:
        splits = glue.load_files(task, folder / task.folder, verify)
    return Loaded(splits, len(task.classes) or None, task.metrics, names, commits)


@lru_cache(maxsize=4)
def _own(
    train: str | None, evaluation: str | None, regression: bool, columns: Sequence[str], label: str | None,
    state: State,
) -> tuple[list[Examples], tuple[str, ...]]:  # fmt: skip
    return load_own(train, evaluation, regression=regression, columns=columns, label_column=label)


def _state(files: Sequence[Path]) -> State:
    """Return the state of those files that exist."""
    found = [path.expanduser() for path in files]
    return tuple(
        (str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in found if path.is_file()
    )


def _splits(loaded: Loaded, config: DataConfig) -> tuple[Examples, dict[str, Examples]]:
    """Return the training set, reduced and without a held-out part as asked for, and the evaluation sets."""
    train, *evaluation = loaded.splits
    if config.images_per_class is not None:
        kept = some_of_each_class(_strata(train, loaded.classes), config.images_per_class, config.images_seed)
        train = train[kept]
    if config.evaluate_on == "test":
        return train, dict(zip(loaded.names, evaluation, strict=True))
    kept, held_out = validation_split(_strata(train, loaded.classes))
    return train[kept], {"": train[held_out]}


def _strata(examples: Examples, classes: int | None) -> np.ndarray:
    """Return (N,) classes, or the tenth of the values in which a regression's value is."""
    if classes is not None:
        return examples.labels
    ranks = examples.labels.argsort(kind="stable").argsort(kind="stable")
    return ranks * 10 // len(ranks)


DATA_SETS = {"glue": Glue(), "text": OwnText()}
