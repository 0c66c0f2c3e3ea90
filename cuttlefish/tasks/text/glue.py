"""GLUE (Wang et al., 2019): its nine tasks, from its own TSV files below data.root/glue or from the hub.

The development sets are what is reported: the test sets have no labels. Diagnostics (AX) are left out.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuttlefish.config.suggest import choose_from
from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.hub import datasets_library, hub_commit
from cuttlefish.tasks.text.examples import Examples, classified, measured
from cuttlefish.tasks.text.rows import Table, read_table

HUB = "nyu-mll/glue"


@dataclass(frozen=True)
class GlueTask:
    """One task.

    Attributes:
        folder: Its folder of TSV files, as GLUE names it.
        sentences, label: Names of the columns.
        classes: Labels in the files, in the hub's order of class numbers; empty for regression.
        metrics: Reported metrics, the headline first: that of Devlin et al. (2019), whom the paper follows.
        rows: Official numbers of rows, training first, then each evaluation set.
        evaluation: The evaluation sets' files.
        columns: Columns of files without a header line.
        skip_short: Whether the official files have rows with missing fields, which readers leave out.
        hub: Its name in the hub's data set, None if it is not there.
        hub_columns: The columns' names there.
    """

    folder: str
    sentences: tuple[str, ...]
    label: str
    classes: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[int, ...]
    evaluation: tuple[str, ...] = ("dev",)
    columns: tuple[str, ...] | None = None
    skip_short: bool = False
    hub: str | None = None
    hub_columns: tuple[str, ...] = ("sentence1", "sentence2")


BINARY, ENTAILED = ("0", "1"), ("entailment", "not_entailment")
PAIR = ("sentence1", "sentence2")
QQP = {
    "sentences": ("question1", "question2"),
    "label": "is_duplicate",
    "classes": BINARY,
    "metrics": ("f1", "accuracy"),
    "skip_short": True,
}
SCORES = (0.0, 5.0)
"""The range of STS-B's labels."""

TASKS = {
    "cola": GlueTask(
        "CoLA", ("sentence",), "label", BINARY, ("matthews", "accuracy"), (8551, 1043),
        columns=("source", "label", "mark", "sentence"), hub="cola", hub_columns=("sentence",),
    ),
    "sst2": GlueTask(
        "SST-2", ("sentence",), "label", BINARY, ("accuracy",), (67349, 872), hub="sst2",
        hub_columns=("sentence",),
    ),
    "mrpc": GlueTask(
        "MRPC", ("#1 String", "#2 String"), "Quality", BINARY, ("f1", "accuracy"), (3668, 408), hub="mrpc"
    ),
    "qqp": GlueTask("QQP", rows=(363846, 40430), hub="qqp", hub_columns=("question1", "question2"), **QQP),
    "qqp_sample": GlueTask("QQP-sample", rows=(2000, 500), **QQP),
    "stsb": GlueTask("STS-B", PAIR, "score", (), ("spearman", "pearson"), (5749, 1500), hub="stsb"),
    "mnli": GlueTask(
        "MNLI", PAIR, "gold_label", ("entailment", "neutral", "contradiction"), ("accuracy",),
        (392702, 9815, 9832), evaluation=("dev_matched", "dev_mismatched"), hub="mnli",
        hub_columns=("premise", "hypothesis"),
    ),
    "qnli": GlueTask(
        "QNLI", ("question", "sentence"), "label", ENTAILED, ("accuracy",), (104743, 5463), hub="qnli",
        hub_columns=("question", "sentence"),
    ),
    "rte": GlueTask("RTE", PAIR, "label", ENTAILED, ("accuracy",), (2490, 277), hub="rte"),
    "wnli": GlueTask("WNLI", PAIR, "label", BINARY, ("accuracy",), (635, 71), hub="wnli"),
}  # fmt: skip

DIGESTS = {
    "cola": "7f3b1950cfe9caf4da27f67006bdda358620671c1a84bc97331866cf855962cf",
    "sst2": "79d71e9287c93508db2ff46ba27a66a54cb2916db38c986349ef593eca09390b",
    "mrpc": "c08c09a713456d4ca6445ef02f1d5d927b0c39d49e43071e36549e775790f815",
    "stsb": "47bdbee9cc8b6ab215cd65eb2814585496749d0e8e6fa1ec2e72ba2dcdb8d99c",
    "rte": "dfea38715571c428f61ee191d5f19cbecfc886b581149697365274cb42899016",
    "wnli": "3e17e79be7612e760d9d0bc19f00a347ebb56edac6b3697cca62d5aadd67b171",
    "qqp_sample": "19516ac57c853caab203e1a4221715944f957e32c77c7ce3980c14af6444813b",
}
"""Digests of the tasks' content, by which tables find records where the files themselves are not."""


def glue_task(name: str) -> GlueTask:
    """Return a task by its name. Raises CuttlefishError that names the nearest one."""
    if name not in TASKS:
        raise CuttlefishError(f"there is no GLUE task {name}{choose_from(name, TASKS)}")
    return TASKS[name]


def read_split(task: GlueTask, path: Path) -> Examples:
    """Read one of a task's TSV files."""
    return labelled(task, read_table(path, task.columns, task.skip_short), task.sentences, task.label)


def labelled(task: GlueTask, table: Table, sentences: tuple[str, ...], label: str) -> Examples:
    """Return a table's examples in an order of their own: copies of GLUE differ in the order of rows."""
    if task.classes:
        return classified(table, sentences, label, task.classes).reordered()
    return measured(table, sentences, label, SCORES).reordered()


def split_files(task: GlueTask, folder: Path) -> list[Path]:
    """Return the files of the training set and the evaluation sets; `.tsv.xz` and `.tsv.gz` count too."""
    return [_found(folder / f"{split}.tsv") for split in ("train", *task.evaluation)]


def load_files(task: GlueTask, folder: Path, verify: bool = True) -> list[Examples]:
    """Return the training set and the evaluation sets from GLUE's own files.

    Raises:
        CuttlefishError: A file is missing or malformed or, with `verify`, has not the official rows.
    """
    files = split_files(task, folder)
    if missing := [path.name for path in files if not path.is_file()]:
        raise CuttlefishError(
            f"GLUE's {task.folder} not found: no {', '.join(missing)} in {folder}; put GLUE's TSV files "
            "there, set data.root or CUTTLEFISH_DATA to the folder that has glue/, or data.download=true to "
            "read it from the hub"
        )
    splits = [read_split(task, path) for path in files]
    for path, split, rows in zip(files, splits, task.rows, strict=True):
        if verify and len(split) != rows:
            raise CuttlefishError(
                f"{path} has {len(split)} rows, and the official one {rows}: get it again, or set "
                "data.verify=false to use it as it is"
            )
    return splits


def load_hub(task: GlueTask, revision: str | None = None) -> tuple[list[Examples], dict[str, str]]:
    """Return the same from the hub, by `datasets`, and its repository there with the commit, where known.

    Raises:
        CuttlefishError: `datasets` is not installed, or the hub cannot be reached.
    """
    if task.hub is None:
        raise CuttlefishError(f"{task.folder} is not on the hub; put its files below data.root/glue")
    library = datasets_library(
        "data.download=true reads GLUE from the hub",
        f"put GLUE's TSV files into data.root/glue/{task.folder}",
    )
    splits = ["train", *(split.replace("dev", "validation") for split in task.evaluation)]
    try:
        read = [library.load_dataset(HUB, task.hub, split=split, revision=revision) for split in splits]
        return [_from_hub(task, rows) for rows in read], hub_commit(HUB, read[0])
    except CuttlefishError:
        raise
    except Exception as error:  # its readers raise all kinds of errors without a network
        reason = " ".join(str(error).split())[:200]
        raise CuttlefishError(
            f"GLUE's {task.hub} could not be read from the hub ({reason}): try again with a network, or put "
            f"GLUE's TSV files into data.root/glue/{task.folder}"
        ) from error


def _from_hub(task: GlueTask, rows: Any) -> Examples:
    """Return the examples of a `datasets.Dataset`, whose labels are class numbers or values."""
    names = [*task.hub_columns, "label"]
    labels = [task.classes[label] if task.classes else label for label in rows["label"]]
    values = zip(*(rows[name] for name in task.hub_columns), labels, strict=True)
    table = Table(Path(HUB) / str(task.hub), names, list(enumerate(values, 1)))
    return labelled(task, table, task.hub_columns, "label")


def _found(path: Path) -> Path:
    packed = (path.with_name(path.name + suffix) for suffix in (".xz", ".gz"))
    return next((other for other in packed if not path.exists() and other.is_file()), path)
