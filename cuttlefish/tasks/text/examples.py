"""Sentences with their labels, checked: what a text task is trained on. Needs no torch."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from cuttlefish.errors import CuttlefishError
from cuttlefish.limits import shown
from cuttlefish.tasks.text.rows import Table


@dataclass(frozen=True)
class Examples:
    """One split.

    Attributes:
        sentences: One list of N sentences, or two for pairs.
        labels: (N,) class numbers, int64, or values, float32.
    """

    sentences: tuple[list[str], ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: np.ndarray) -> "Examples":
        return Examples(tuple([column[i] for i in index] for column in self.sentences), self.labels[index])

    def reordered(self) -> "Examples":
        """Return the rows in the order of their hashes: the same for every order of the same file."""
        rows = zip(*self.sentences, self.labels.tolist(), strict=True)
        hashes = [hashlib.sha256(json.dumps(row).encode()).digest() for row in rows]
        return self[np.array(sorted(range(len(self)), key=hashes.__getitem__))]

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the content, whatever file it was read from."""
        content = json.dumps([*self.sentences, self.labels.tolist()])
        return hashlib.sha256(content.encode()).hexdigest()


def classified(table: Table, sentences: Sequence[str], label: str, classes: Sequence[str]) -> Examples:
    """Return a table's examples with class numbers.

    Args:
        sentences: Names of the one or two columns of sentences.
        label: Name of the column of labels.
        classes: The class names, in order.
    """
    number = {name: index for index, name in enumerate(classes)}
    labels, at = [], table.column(label)
    for line, row in table.rows:
        name = written(row[at])
        if name not in number:
            few = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            raise CuttlefishError(f"{table.place(line)}: the {label} {shown(row[at])} is none of {few}")
        labels.append(number[name])
    return Examples(_texts(table, sentences), np.array(labels, np.int64))


def measured(
    table: Table, sentences: Sequence[str], label: str, within: tuple[float, float] | None = None
) -> Examples:
    """Return a table's examples with numbers for labels, for regression, each in the interval `within`."""
    at, low_high = table.column(label), within or (-np.inf, np.inf)
    labels = []
    for line, row in table.rows:
        value = _number(row[at])
        if value is None or not isfinite(value):
            raise CuttlefishError(
                f"{table.place(line)}: the {label} {shown(row[at])} is no number, which a regression needs"
            )
        if not low_high[0] <= value <= low_high[1]:
            raise CuttlefishError(
                f"{table.place(line)}: the {label} {shown(row[at])} is outside {low_high[0]} to {low_high[1]}"
            )
        labels.append(value)
    return Examples(_texts(table, sentences), np.array(labels, np.float32))


def class_names(table: Table, label: str) -> tuple[str, ...]:
    """Return the labels that occur, whole numbers in their order, names in the alphabet's.

    Raises:
        CuttlefishError: There is only one, or they are numbers with fractions.
    """
    at = table.column(label)
    found = {written(row[at]): line for line, row in table.rows}
    numbers = [_number(name) for name in found]
    if None not in numbers:
        for name, number in zip(found, numbers, strict=True):
            if not number.is_integer():
                raise CuttlefishError(
                    f"{table.place(found[name])}: the {label} {name} is a number with a fraction; set "
                    "data.regression=true to predict numbers, or give class names"
                )
    if len(found) < 2:
        raise CuttlefishError(f"{table.path} has one class only, {label} {next(iter(found))}")
    return tuple(sorted(found) if None in numbers else sorted(found, key=float))


def written(label: Any) -> str:
    """Return a label as a class name: JSON's true is "true", 1 and 1.0 are "1"."""
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return str(label)


def _number(label: Any) -> float | None:
    if isinstance(label, bool) or not isinstance(label, str | int | float):
        return None
    try:
        return float(label)
    except ValueError:
        return None


def _texts(table: Table, names: Sequence[str]) -> tuple[list[str], ...]:
    return tuple(_column(table, name) for name in names)


def _column(table: Table, name: str) -> list[str]:
    at = table.column(name)
    texts = [row[at] for _, row in table.rows]
    for (line, _), text in zip(table.rows, texts, strict=True):
        if not isinstance(text, str) or not text.strip():
            what = "is empty" if text in ("", None) or isinstance(text, str) else f"is {shown(text)}, no text"
            raise CuttlefishError(f"{table.place(line)}: {name} {what}")
    return texts
