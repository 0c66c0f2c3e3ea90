import shutil
import sys
from pathlib import Path

import pytest
import yaml

from cuttlefish.config.choices import help_text
from cuttlefish.config.compose import compose_config
from cuttlefish.config.schema import DataConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks import sets
from cuttlefish.tasks.files import data_digest
from cuttlefish.tasks.image_set import ImageSet
from cuttlefish.tasks.registry import data_set, data_sets
from cuttlefish.worker import run_config

CONF = Path(__file__).resolve().parents[2] / "conf"


def test_an_unknown_kind_is_told_the_nearest():
    with pytest.raises(CuttlefishError) as caught:
        data_digest(DataConfig(kind="cifar1O"))
    assert f"(choose from {', '.join(data_sets())})" in str(caught.value)
    assert {"cifar10", "cifar100", "digits", "svhn", "synthetic"} <= set(data_sets())
    assert str(caught.value).endswith("did you mean cifar10?")


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"classes": 5}, "a setting of data=synthetic"),
        ({"kind": "digits", "train_images": 5}, "a setting of data=synthetic"),
        (
            {"kind": "svhn", "image_size": 16},
            "of data=digits, data=folder, data=imagenet, data=hfds, data=synthetic",
        ),
    ],
)
def test_a_setting_that_a_set_does_not_take_is_refused(settings, word):
    with pytest.raises(CuttlefishError) as caught:
        data_set(DataConfig(**settings))
    assert word in str(caught.value) and "\n" not in str(caught.value)


def test_a_set_without_a_digest_cannot_be_defined():
    with pytest.raises(ValueError, match="Toys must have either files or content"):
        ImageSet("Toys", classes=lambda config: 2, load=lambda config, split: None)


MODULE = """
import numpy as np

from cuttlefish.tasks.image_set import ImageSet


def load(config, split):
    labels = np.arange({count}) % 3
    return np.tile(labels[:, None, None, None] * 80, (1, 12, 12, 3)).astype(np.uint8), labels


DATA_SETS = {{
    "stripes": ImageSet("Stripes", lambda config: 3, load, content=lambda config: {{"stripes": {count}}})
}}
"""


@pytest.fixture
def add_stripes(tmp_path, monkeypatch):
    """Adds a data set by what docs/extend.md asks for: a module and a conf file. Returns the new conf/."""
    (tmp_path / "sets").mkdir()
    monkeypatch.setattr(sets, "__path__", [*sets.__path__, str(tmp_path / "sets")])

    def add(count: int = 60) -> Path:
        (tmp_path / "sets" / "stripes.py").write_text(MODULE.format(count=count))
        sys.modules.pop("cuttlefish.tasks.sets.stripes", None)
        conf = tmp_path / "conf"
        if not conf.exists():
            shutil.copytree(CONF, conf)
            (conf / "data" / "stripes.yaml").write_text("# Stripes.\nname: stripes\nkind: stripes\n")
        return conf

    yield add
    sys.modules.pop("cuttlefish.tasks.sets.stripes", None)


def test_a_new_set_is_a_module_and_a_conf_file(add_stripes, tmp_path):
    conf = add_stripes()
    assert "data=stripes" in help_text([conf])
    words = ["data=stripes", "method=cuttlefish", "debug=smoke", "logger=quiet", "trainer.device=cpu"]
    config = compose_config(conf, [*words, f"run_dir={tmp_path / 'run'}"])
    record = run_config(config)
    assert (record.status, record.data) == ("finished", "stripes")
    assert yaml.safe_load((tmp_path / "run" / "resolved.yaml").read_text())["data"]["kind"] == "stripes"
    assert record.data_digest == data_digest(config.data)
    others = {data_digest(DataConfig(kind=kind)) for kind in ("digits", "synthetic")}
    add_stripes(90)
    assert len({record.data_digest, data_digest(config.data), *others}) == 4, "its content is in the key"
