"""An unknown classifier of timm or torchvision is refused from their files, before they are imported."""

import subprocess
import sys
from importlib import import_module

import pytest

from cuttlefish.config.library_names import check_library_name
from cuttlefish.config.schema import ModelConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.models.libraries import timm_names, torchvision_names


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        ("timm", "nosuchnet", "is not a classifier of timm$"),
        ("timm", "ResNet50", "did you mean resnet50"),
        ("timm", "deit_base_patch17_224", "did you mean deit_base_patch16_224"),
        ("torchvision", "resnet51", "model.name=resnet51 is not a classifier of torchvision; did you mean"),
        ("timm", "a(b", "is not a classifier of timm$"),
    ],
)
def test_an_unknown_name_is_refused(source, name, words):
    with pytest.raises(CuttlefishError, match=words):
        check_library_name(ModelConfig(name=name, source=source))


def test_no_known_name_is_refused():
    deprecated = import_module("timm.models._registry")._deprecated_models
    known = {"timm": [*timm_names(), *deprecated, "resnet50.a1_in1k"], "torchvision": torchvision_names()}
    for source, names in known.items():
        for name in names[::25]:
            check_library_name(ModelConfig(name=name, source=source))


def test_names_of_the_suite_and_of_the_hub_pass():
    check_library_name(ModelConfig(name="resnet18"))
    check_library_name(ModelConfig(name="prajjwal1/bert-tiny", source="transformers"))


def test_it_imports_neither_torch_nor_the_library():
    code = (
        "import sys; from cuttlefish.config.library_names import check_library_name as check\n"
        "from cuttlefish.config.schema import ModelConfig\n"
        "check(ModelConfig(name='resnet50', source='timm'))\n"
        "print({'torch', 'timm', 'torchvision'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"
