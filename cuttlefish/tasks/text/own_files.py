"""`data=text data.train=... data.eval=...`: a user's own files of sentences and labels."""

from collections.abc import Sequence
from pathlib import Path

from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.text.examples import Examples, class_names, classified, measured
from cuttlefish.tasks.text.rows import Table, read_table

LABEL = ("label", "score", "target", "class")
"""Names that a column of labels usually has."""


def load_own(
    train: str | None,
    evaluation: str | None,
    *,
    regression: bool,
    columns: Sequence[str],
    label_column: str | None,
) -> tuple[list[Examples], tuple[str, ...]]:
    """Return the training and the evaluation set, and the class names: none for a regression.

    Class names are those of the training set.

    Args:
        train, evaluation: The files.
        columns: The one or two columns of sentences; empty for all but the label's.
        label_column: The column of labels; None for the one called label, score, target or class.

    Raises:
        CuttlefishError: A file is missing or malformed, or its columns or labels do not fit.
    """
    if not train or not evaluation:
        raise CuttlefishError("data=text needs two files, data.train=... and data.eval=...")
    tables = [read_table(Path(path).expanduser()) for path in (train, evaluation)]
    sentences, label = _columns(tables[0], columns, label_column)
    if regression:
        return [measured(table, sentences, label) for table in tables], ()
    classes = class_names(tables[0], label)
    return [classified(table, sentences, label, classes) for table in tables], classes


def _columns(table: Table, columns: Sequence[str], label: str | None) -> tuple[Sequence[str], str]:
    label = label or next((name for name in LABEL if name in table.columns), None)
    if label is None:
        raise CuttlefishError(
            f"{table.path} has no column called {', '.join(LABEL)}: name it by data.label_column "
            f"(its columns are {', '.join(table.columns)})"
        )
    table.column(label)
    sentences = columns or [name for name in table.columns if name != label]
    if not 1 <= len(sentences) <= 2:
        raise CuttlefishError(
            f"{table.path} has {len(sentences)} columns beside {label} ({', '.join(sentences)}): name the "
            "one or two that are sentences by data.columns=[...]"
        )
    return sentences, label
