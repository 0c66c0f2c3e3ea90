import math
import os
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cuttlefish.config.schema import DataConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.registry import data_set
from cuttlefish.tasks.text.glue import DIGESTS, TASKS, load_files

COMMIT = "0123456789abcdef" * 2 + "01234567"


def load(name, root, **settings):
    config = DataConfig(name=name, kind="glue", root=str(root), verify=False, **settings)
    return data_set(config).load(config)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("cola", (['Sentence train 0 "is quoted.'],)),
        ("mrpc", (["The first train 0."], ['The "second train 0.'])),
        ("qqp_sample", (["Why train 0?"], ["How train 0?"])),
        ("rte", (["It rains train 0."], ["It is train 0."])),
    ],
)
def test_each_folder_is_read_in_its_own_form(write_glue, name, first):
    loaded = load(name, write_glue(TASKS[name].folder))
    rows = list(zip(*loaded.splits[0].sentences, loaded.splits[0].labels, strict=True))
    assert len(rows) == 6 and (*(column[0] for column in first), 0) in rows and loaded.classes == 2
    assert len(loaded.splits) == 2 and loaded.metrics == TASKS[name].metrics


def test_scores_are_numbers(write_glue):
    loaded = load("stsb", write_glue("STS-B"))
    assert loaded.classes is None and loaded.splits[0].labels.dtype == np.float32
    assert (
        sorted(loaded.splits[0].labels.tolist()) == [0, 0, 2.5, 2.5, 5, 5] and loaded.metrics[0] == "spearman"
    )


def test_mnli_has_two_evaluation_sets(write_glue):
    loaded = load("mnli", write_glue("MNLI", splits=("train", "dev_matched", "dev_mismatched")))
    assert loaded.names == ["", "mismatched"] and loaded.classes == 3
    assert "A dev_mismatched 0" in loaded.splits[2].sentences[0]


def test_the_digest_is_of_the_rows_not_of_the_files(write_glue, tmp_path):
    plain = load("sst2", write_glue("SST-2")).digest()
    (tmp_path / "root").rename(tmp_path / "moved")
    assert load("sst2", write_glue("SST-2", packed=True)).digest() == plain
    (tmp_path / "root").rename(tmp_path / "packed")
    assert load("sst2", write_glue("SST-2", rows=7)).digest() != plain


def test_the_order_of_a_file_does_not_matter(write_glue):
    root = write_glue("CoLA")
    one = load("cola", root)
    file = root / "glue" / "CoLA" / "train.tsv"
    file.write_text("\n".join(reversed(file.read_text().split("\n")[:-1])) + "\n")
    other = load("cola", root)
    assert one.digest() == other.digest() and one.splits[0].sentences == other.splits[0].sentences


def test_an_unknown_task_is_told_the_nearest():
    with pytest.raises(CuttlefishError, match=r"no GLUE task mrcp .*did you mean mrpc\?"):
        load("mrcp", "nowhere")


def test_missing_files_say_where_to_put_them(tmp_path):
    with pytest.raises(CuttlefishError, match="RTE not found: no train.tsv, dev.tsv in .*data.download=true"):
        load("rte", tmp_path)


def test_a_wrong_label_is_named_with_its_line(write_glue):
    root = write_glue("RTE")
    file = root / "glue" / "RTE" / "dev.tsv"
    file.write_text(file.read_text().replace("not_entailment", "neutral", 1))
    with pytest.raises(CuttlefishError, match="dev.tsv, line 3: the label 'neutral' is none of entailment"):
        load("rte", root)


def test_a_score_out_of_range_is_named_with_its_line(write_glue):
    root = write_glue("STS-B")
    file = root / "glue" / "STS-B" / "train.tsv"
    file.write_text(file.read_text().replace("2.5", "25", 1))
    with pytest.raises(CuttlefishError, match="train.tsv, line 3: the score '25' is outside 0.0 to 5.0"):
        load("stsb", root)


def test_rows_that_are_not_the_official_ones_are_refused(write_glue):
    root = write_glue("RTE")
    with pytest.raises(CuttlefishError, match="has 6 rows, and the official one 2490: .*data.verify=false"):
        load_files(TASKS["rte"], root / "glue" / "RTE")


def test_the_hub_needs_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CuttlefishError, match="by datasets, which is not installed"):
        load("rte", tmp_path, download=True)


def test_the_hub_gives_what_the_files_give(write_glue, tmp_path, monkeypatch):
    from_files = load("mnli", write_glue("MNLI", splits=("train", "dev_matched", "dev_mismatched")))

    def load_dataset(path, name, split, revision):
        assert (path, name, revision) == ("nyu-mll/glue", "mnli", "v1")
        where = ["train", "validation_matched", "validation_mismatched"].index(split)
        examples = from_files.splits[where]
        rows = Rows(
            premise=examples.sentences[0], hypothesis=examples.sentences[1], label=examples.labels.tolist()
        )
        rows.cache_files = [{"filename": f"/cache/nyu-mll___glue/mnli/0.0.0/{COMMIT}/glue-{split}.arrow"}]
        return rows

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    from_hub = load("mnli", tmp_path / "empty", download=True, settings={"revision": "v1"})
    assert from_hub.digest() == from_files.digest()
    assert (from_hub.revisions, from_files.revisions) == ({"nyu-mll/glue": COMMIT}, {})


class Rows(dict):
    """Columns by name, as of a `datasets.Dataset`."""


@pytest.mark.parametrize(("download", "why"), [(False, "data.download is false"), (True, "are on this mach")])
def test_a_revision_is_of_the_hub(write_glue, download, why):
    with pytest.raises(CuttlefishError, match=f"data.revision=v1 is of GLUE on the hub, but .*{why}"):
        load("rte", write_glue("RTE"), download=download, settings={"revision": "v1"})


def test_an_epoch_has_the_steps_of_the_public_code():
    steps = {
        "cola": 268,
        "sst2": 2105,
        "mrpc": 115,
        "stsb": 180,
        "qqp": 11371,
        "mnli": 12272,
        "qnli": 3274,
        "rte": 78,
    }
    assert {name: math.ceil(TASKS[name].rows[0] / 32) for name in steps} == steps


def test_without_its_files_a_task_still_has_its_known_digest(tmp_path):
    def published(name):
        config = DataConfig(name=name, kind="glue", root=str(tmp_path))
        assert not data_set(config).is_there(config)
        return data_set(config).published_digest(config)

    assert published("rte") == DIGESTS["rte"] and published("mnli") != published("qnli")


REAL = {
    "cola": (8551, 1043, {1: 6023, 0: 2528}, {1: 721, 0: 322}),
    "sst2": (67349, 872, {1: 37569, 0: 29780}, {1: 444, 0: 428}),
    "mrpc": (3668, 408, {1: 2474, 0: 1194}, {1: 279, 0: 129}),
    "rte": (2490, 277, {0: 1249, 1: 1241}, {0: 146, 1: 131}),
    "wnli": (635, 71, {1: 312, 0: 323}, {1: 31, 0: 40}),
    "qqp_sample": (2000, 500, None, None),
}


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL)
def test_real_tasks_have_the_official_rows_and_labels(name):
    config = DataConfig(name=name, kind="glue")
    if not (Path(os.environ["CUTTLEFISH_DATA"]) / "glue" / TASKS[name].folder).is_dir():
        pytest.skip(f"no {name}")
    splits = data_set(config).load(config).splits
    assert tuple(map(len, splits)) == REAL[name][:2]
    assert data_set(config).digest(config) == DIGESTS[name]
    for split, counts in zip(splits, REAL[name][2:], strict=True):
        assert counts is None or Counter(split.labels.tolist()) == counts
