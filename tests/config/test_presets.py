"""A cell's values: which file wins, and that Hydra shows exactly what the run will have."""

import shutil

import pytest
import yaml

from cuttlefish.config.compose import compose_config
from cuttlefish.config.validate import load_config, to_dict
from cuttlefish.errors import CuttlefishError
from tests.helpers.runs import CONF
from tests.helpers.sweeps import front_door

LAYERS = {
    "method/toy": "name: toy\npreset: default\na: 0\nb: 0\nc: 0\nd: 0\ne: 0\nf: 0\ng: 0\n",
    "cell/method_preset/toy-paper": "preset: paper\na: 1\nb: 1\nc: 1\nd: 1\ne: 1\nf: 1\n",
    "cell/method_model/toy/vgg19": "b: 2\nc: 2\nd: 2\ne: 2\nf: 2\n",
    "cell/method_preset_model/toy/paper-vgg19": "c: 3\nd: 3\ne: 3\nf: 3\n",
    "cell/method_preset_model_data/toy-paper-vgg19-svhn": "d: 4\ne: 4\nf: 4\n",
    "cell/method_debug/toy-smoke": "e: 5\nf: 5\n",
    "experiment/one": "# @package _global_\ndefaults:\n  - _self_\n  - override /preset: paper\nmethod: {f: 6}\n",
}


@pytest.fixture
def toy(tmp_path):
    """conf/ with a method of seven knobs; a function from words to their values."""
    shutil.copytree(CONF, tmp_path, dirs_exist_ok=True)
    for name, text in LAYERS.items():
        (tmp_path / f"{name}.yaml").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)

    def values(*words: str) -> str:
        method = compose_config(tmp_path, ["method=toy", *words]).method
        return "".join(str(method[knob]) for knob in "abcdefg")

    return values


def test_the_more_specific_file_wins_then_the_command_line(toy):
    assert toy() == "0000000"
    assert toy("preset=paper") == "1111110"
    assert toy("model=vgg19") == "0222220"
    assert toy("preset=paper", "model=vgg19") == "1233330"
    assert toy("preset=paper", "model=vgg19", "data=svhn") == "1234440"
    assert toy("preset=paper", "model=vgg19", "data=svhn", "debug=smoke") == "1234550"
    assert toy("debug=smoke") == "0000550" and toy("debug=profile") == "0000000"
    assert toy("experiment=one", "debug=smoke") == "1111560"
    assert toy("experiment=one", "preset=default") == "0000060"
    assert toy("preset=paper", "model=vgg19", "method.a=9", "method.c=9") == "9293330"


def test_a_preset_that_the_method_has_not_is_refused(toy):
    with pytest.raises(CuttlefishError, match=r"toy has no preset reference \(choose from default, paper\)"):
        toy("preset=reference")


@pytest.mark.parametrize("words", [
    "method=cuttlefish preset=reference", "method=lc preset=reference model=vgg19 debug=smoke",
    "experiment=table1 method=eb preset=reference recipe.batch_size=256", "experiment=demo/cuttlefish", "data=svhn",
])  # fmt: skip
def test_cfg_job_shows_exactly_what_the_run_will_have(words, tmp_path):
    done = front_door(tmp_path, *words.split(), "--cfg", "job", "--resolve")
    shown, config = yaml.safe_load(done.stdout), to_dict(compose_config(CONF, words.split()))
    shown["method"] = {key: value for key, value in shown["method"].items() if value is not None}
    assert to_dict(load_config(shown)) == config and set(shown) == set(config)
    assert list(tmp_path.iterdir()) == []


def test_no_folder_of_conf_has_more_than_15_files():
    folders = [path for path in CONF.rglob("*") if path.is_dir()]
    assert max(len(list(folder.glob("*.yaml"))) for folder in [CONF, *folders]) <= 15
