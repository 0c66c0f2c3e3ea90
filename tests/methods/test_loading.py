"""Methods by name: a folder, a module of one file, or none."""

import pytest

import baselines
from cuttlefish.errors import CuttlefishError
from cuttlefish.methods import build_method, check_knobs, load_method, load_settings

MINE = """
from dataclasses import dataclass
from typing import Annotated
from cuttlefish.limits import Checked, Within
from cuttlefish.methods.base import Method

class Mine(Method):
    name = "mine"

    @dataclass(frozen=True)
    class Settings(Checked):
        depth: Annotated[int, Within(1, 9)] = 2
"""


def test_a_method_may_be_one_file(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(tmp_path)])
    method = build_method({"name": "mine", "preset": "default", "depth": 3})
    assert (method.name, method.settings.depth) == ("mine", 3)
    with pytest.raises(CuttlefishError, match=r"method.depth must be in \[1, 9\], not 10"):
        check_knobs({"name": "mine", "depth": 10})


def test_a_folder_s_settings_are_the_method_s():
    assert load_method("lc").Settings is load_settings("lc")


@pytest.mark.parametrize("name", ["nosuch", "conv_norms", "base"])
def test_what_holds_no_method_of_its_name_is_none(name):
    for load in (load_method, load_settings):
        with pytest.raises(CuttlefishError, match=f"there is no method '{name}'"):
            load(name)


@pytest.mark.parametrize("name", ["", "../lc", "lc.method", "LC"])
def test_a_name_is_a_word(name):
    with pytest.raises(CuttlefishError, match="is not a method's name"):
        load_settings(name)
