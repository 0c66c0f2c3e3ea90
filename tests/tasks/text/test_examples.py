from pathlib import Path

import numpy as np
import pytest

from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.text.examples import Examples, class_names, classified, measured
from cuttlefish.tasks.text.rows import Table


def table(*labels, text="a"):
    return Table(Path("f.csv"), ("text", "label"), [(n, [text, label]) for n, label in enumerate(labels, 2)])


def test_classes_are_numbered_in_the_order_given():
    examples = classified(table("no", "yes", "no"), ["text"], "label", ["yes", "no"])
    assert examples.labels.tolist() == [1, 0, 1] and examples.labels.dtype == np.int64
    assert examples.sentences == (["a"] * 3,)


def test_class_names_sort_as_numbers_or_as_words():
    assert class_names(table("10", "9", "-1"), "label") == ("-1", "9", "10")
    assert class_names(table("b", "10", "9"), "label") == ("10", "9", "b")
    assert class_names(table(1, 0.0, True), "label") == ("0", "1", "true")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: classified(table("0", "2"), ["text"], "label", "01"),
            "line 3: the label '2' is none of 0, 1",
        ),
        (lambda: measured(table("1", "high"), ["text"], "label"), "line 3: the label 'high' is no number"),
        (lambda: measured(table("nan"), ["text"], "label"), "line 2: the label 'nan' is no number"),
        (
            lambda: measured(table("5.5"), ["text"], "label", (0, 5)),
            "line 2: the label '5.5' is outside 0 to 5",
        ),
        (
            lambda: class_names(table("1", "0.5"), "label"),
            "line 3: the label 0.5 is a number with a fraction",
        ),
        (lambda: class_names(table("1", "1"), "label"), "has one class only, label 1"),
        (lambda: measured(table(1.0, text=" "), ["text"], "label"), "line 2: text is empty"),
        (lambda: measured(table(1.0, text=3), ["text"], "label"), "line 2: text is 3, no text"),
    ],
)
def test_wrong_values_are_refused_with_their_place(make, said):
    with pytest.raises(CuttlefishError) as caught:
        make()
    assert said in str(caught.value) and "f.csv" in str(caught.value)


def test_the_digest_is_of_content_and_where_it_is_cut():
    one = Examples((["ab", "c"],), np.array([0, 1]))
    assert one.digest() == Examples((["ab", "c"],), np.array([0, 1])).digest()
    for other in (
        Examples((["a", "bc"],), np.array([0, 1])),
        Examples((["ab"], ["c"]), np.array([0, 1])),
        Examples((["ab", "c"],), np.array([1, 1])),
    ):
        assert other.digest() != one.digest()
