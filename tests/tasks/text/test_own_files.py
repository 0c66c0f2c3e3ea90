import json

import pytest

from cuttlefish.config.schema import DataConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.registry import data_set


@pytest.fixture
def files(tmp_path):
    """Writes train.csv and dev.csv and returns a function that loads them with further settings."""

    def load(train, dev=None, suffix="csv", **settings):
        for name, text in (("train", train), ("dev", dev or train)):
            (tmp_path / f"{name}.{suffix}").write_text(text)
        places = {"train": str(tmp_path / f"train.{suffix}"), "eval": str(tmp_path / f"dev.{suffix}")}
        config = DataConfig(name="text", kind="text", settings={**places, **settings})
        return data_set(config).load(config)

    return load


def test_sentences_and_class_names(files):
    loaded = files("text,label\na,spam\nb,ham\n")
    assert loaded.classes == 2 and loaded.splits[0].labels.tolist() == [1, 0]
    assert loaded.metrics == ("accuracy", "f1", "matthews")


def test_pairs_and_named_columns(files):
    loaded = files("id,a,b,gold\n1,x,y,0\n2,z,w,2\n3,u,v,1\n", columns=["b", "a"], label_column="gold")
    assert loaded.splits[0].sentences == (["y", "w", "v"], ["x", "z", "u"])
    assert loaded.classes == 3 and loaded.metrics == ("accuracy", "matthews")


def test_numbers_when_asked(files):
    rows = "\n".join(json.dumps({"text": "a", "score": value}) for value in (0.5, 2))
    loaded = files(rows, suffix="jsonl", regression=True, metric="pearson")
    assert loaded.classes is None and loaded.splits[0].labels.tolist() == [0.5, 2.0]
    assert loaded.metrics == ("pearson", "spearman")


@pytest.mark.parametrize(
    ("train", "dev", "settings", "said"),
    [
        ("text,label\na,0\nb,1\n", "text,label\na,2\n", {}, "dev.csv, line 2: the label '2' is none of 0, 1"),
        ("text,label\na,0.5\nb,1\n", None, {}, "set data.regression=true"),
        ("text,label\na,1\nb,low\n", None, {"regression": True}, "line 3: the label 'low' is no number"),
        ("text,label\na,1\nb,0\n", None, {"metric": "pearson"}, "set data.regression=true"),
        ("text,label\na,1\nb,0\n", None, {"metric": "f1", "regression": True}, "is for classes"),
        ("text,label\na,1\nb,0\nc,2\n", None, {"metric": "f1"}, "is for two classes, and there are 3"),
        ("text,gold\na,1\n", None, {}, "name it by data.label_column (its columns are text, gold)"),
        ("id,a,b,label\n1,a,b,1\n", None, {}, "has 3 columns beside label (id, a, b)"),
        ("text,label\na,1\nb,0\n", None, {"columns": ["txt"]}, "no column txt"),
        ("text,label\na,1\nb,0\n", None, {"eval": None}, "needs two files"),
        ("text,label\na,1\nb,0\n", None, {"trian": "x"}, "there is no key data.trian"),
    ],
)
def test_mistakes_end_in_one_sentence(files, train, dev, settings, said):
    with pytest.raises(CuttlefishError) as caught:
        files(train, dev, **settings)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_the_digest_follows_the_content(files):
    first = files("text,label\na,0\nb,1\n").digest()
    assert files("label,text\n0,a\n1,b\n").digest() == first
    assert files("text,label\na,0\nb,1\nc,1\n").digest() != first
