"""Image sets of the Hugging Face hub, from folders on this machine: the same task as a folder of the files."""

from pathlib import Path

import pytest
import torch

from cuttlefish.config.compose import compose_config
from cuttlefish.config.validate import load_config
from cuttlefish.engine.run import resolve_run
from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.folder import hub
from cuttlefish.tasks.registry import data_set
from cuttlefish.worker import run_config
from tests.helpers.photos import write_photos
from tests.helpers.runs import CONF

datasets = pytest.importorskip("datasets", reason="the extra `hub` is not installed")
SHOWN = {"image_size": 16, "flip": True, "crop_scale": [0.2, 1.0], "workers": 0, "erase": 0.5, "mixup": 0.8}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Keep what `datasets` prepares out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), classes=3, train=7, val=3)


def splits(photos, by_path=False):
    """The photos as `datasets` has them, in the folder's order."""
    classes = sorted(path.name for path in (photos / "train").iterdir())
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=classes)})
    found = {}
    for ours, theirs in (("train", "train"), ("val", "validation")):
        files = sorted((photos / ours).glob("*/*"))
        images = [
            {"bytes": None if by_path else file.read_bytes(), "path": str(file) if by_path else file.name}
            for file in files
        ]
        rows = {"image": images, "label": [classes.index(file.parent.name) for file in files]}
        found[theirs] = datasets.Dataset.from_dict(rows, features=features)
    return found


@pytest.fixture(scope="module")
def parquet(photos, tmp_path_factory):
    root = tmp_path_factory.mktemp("parquet")
    for name, rows in splits(photos).items():
        rows.to_parquet(root / "data" / f"{name}-00000-of-00001.parquet")
    return root


def config_of(kind, **settings):
    return load_config({"data": {"name": kind, "kind": kind, **SHOWN, **settings}})


def task_of(kind, **settings):
    config = config_of(kind, **settings)
    return data_set(config.data).task(config, torch.device("cpu"), torch.float32)


def same(one, other):
    return all(
        torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("form", ["parquet", "saved", "by path"])
def test_a_sample_is_that_of_a_folder_of_its_files(photos, parquet, tmp_path, form):
    source = parquet
    if form != "parquet":
        source = tmp_path / "saved"
        datasets.DatasetDict(splits(photos, by_path=form == "by path")).save_to_disk(source)
    ours, folder = task_of("hfds", source=str(source)), task_of("folder", root=str(photos))
    assert (ours.classes, ours.train_size, ours.class_counts()) == (3, 21, [7, 7, 7])
    for options in ({}, {"process": 1, "processes": 2, "first": 1}):
        shown = [list(task.train_batches(8, seed=1, epoch=2, **options)) for task in (ours, folder)]
        assert same(*shown)
    assert same(ours.eval_batches(4), folder.eval_batches(4))


def test_workers_and_a_validation_split(photos, parquet):
    held = {"evaluate_on": "validation", "source": str(parquet)}
    ours, folder = (
        task_of("hfds", **held, workers=2),
        task_of("folder", root=str(photos), evaluate_on="validation"),
    )
    assert same(ours.train_batches(8, seed=1, epoch=0), folder.train_batches(8, seed=1, epoch=0))
    assert same(ours.eval_batches(4), folder.eval_batches(4))


def test_the_run_key_knows_the_content_and_not_where_it_lies(photos, parquet, tmp_path):
    datasets.DatasetDict(splits(photos)).save_to_disk(tmp_path / "saved")
    keys = [resolve_run(config_of("hfds", source=str(place))).key for place in (parquet, tmp_path / "saved")]
    assert keys[0] == keys[1]
    other = datasets.DatasetDict(splits(photos))
    other["train"] = other["train"].select(range(20))
    other.save_to_disk(tmp_path / "other")
    assert resolve_run(config_of("hfds", source=str(tmp_path / "other"))).key != keys[0]


def test_a_run_from_the_command_line_s_words(parquet, tmp_path):
    words = (
        f"data=hfds data.source={parquet} model=timm model.name=resnet18 data.image_size=32 data.workers=0 "
        f"recipe.epochs=1 recipe.batch_size=8 run_dir={tmp_path}/run logger=quiet trainer.device=cpu"
    )
    record = run_config(compose_config(CONF, words.split()))
    assert (record.status, record.data, record.revisions) == ("finished", "hfds", None)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "data=hfds needs data.source"),
        (
            {"source": "timm/no-such"},
            "is no folder on this machine; data.download=true reads it from the hub",
        ),
        ({"revision": "v1"}, "data.revision=v1 is a commit on the hub"),
        ({"val_split": "test"}, "split test, could not be read as images"),
        ({"label_column": "labels"}, "has no column labels.*did you mean label"),
        ({"image_column": "label"}, "could not be read as images|cannot be read"),
        ({"skip_unreadable": True}, "data.skip_unreadable is of data=folder"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(parquet, settings, told):
    source = {"source": str(parquet)} if settings and "source" not in settings else {}
    with pytest.raises(CuttlefishError, match=told) as caught:
        task_of("hfds", **source, **settings)
    assert "\n" not in str(caught.value)


def test_rows_without_a_class_are_refused(photos, tmp_path):
    unlabelled = datasets.DatasetDict(splits(photos))
    unlabelled["validation"] = unlabelled["validation"].map(lambda row: {"label": -1})
    unlabelled.save_to_disk(tmp_path / "set")
    with pytest.raises(CuttlefishError, match="split validation, has rows without a class in column label"):
        task_of("hfds", source=str(tmp_path / "set"))


def test_a_damaged_image_is_named_by_its_row(photos, tmp_path):
    broken = datasets.DatasetDict(splits(photos))
    rows = broken["train"].cast_column("image", datasets.Image(decode=False)).to_list()
    rows[3]["image"]["bytes"] = rows[3]["image"]["bytes"][:60]
    broken["train"] = datasets.Dataset.from_list(rows, features=broken["train"].features)
    broken.save_to_disk(tmp_path / "set")
    with pytest.raises(CuttlefishError, match=r"row 3 of .*set, train is no image that can be read"):
        list(task_of("hfds", source=str(tmp_path / "set")).train_batches(8, seed=1, epoch=2))


def test_a_set_of_the_hub_is_read_at_its_revision(parquet, monkeypatch):
    commit, asked = "0123456789abcdef" * 2 + "01234567", []

    def load_dataset(source, subset, split, revision):
        asked.append((source, subset, split, revision))
        return real(str(parquet), split=split)

    real = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub, "hub_commit", lambda source, rows: {source: commit})
    task = task_of("hfds", source="own/photos", download=True, revision="v1")
    assert task.revisions == {"own/photos": commit}
    assert asked == [("own/photos", None, split, "v1") for split in ("train", "validation")]
    assert not Path("own").exists()
