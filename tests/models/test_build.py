import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from cuttlefish.config.schema import ModelConfig
from cuttlefish.errors import CuttlefishError
from cuttlefish.models import build_model
from cuttlefish.models.checkpoints import hub_commit

SHAPE = (3, 32, 32)


def refused(**settings) -> str:
    with pytest.raises(CuttlefishError) as caught:
        build_model(ModelConfig(**settings), 10, SHAPE)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_torchvision_by_name_with_the_datas_classes():
    torch.manual_seed(0)
    model = build_model(
        ModelConfig(name="resnet18", source="torchvision", arguments={"zero_init_residual": True}), 7, SHAPE
    )
    assert isinstance(model, torchvision.models.ResNet) and model.fc.out_features == 7 and model.training
    assert (model.layer1[0].bn2.weight == 0).all()


def test_timm_by_name_with_arguments():
    settings = {"img_size": 32, "patch_size": 8, "depth": 2}
    model = build_model(
        ModelConfig(name="deit_tiny_patch16_224", source="timm", arguments=settings), 7, SHAPE
    )
    assert len(model.blocks) == 2 and model(torch.zeros(2, *SHAPE)).shape == (2, 7)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"name": "resnet81"}, ["model.name=resnet81", "the suite", "resnet18, vgg19"]),
        (
            {"name": "resnet5", "source": "torchvision"},
            ["model.name=resnet5", "torchvision", "did you mean resnet5"],
        ),
        (
            {"name": "deit_base_patch16_224x", "source": "timm"},
            ["timm", "did you mean deit_base_patch16_224"],
        ),
        ({"name": "hf-hub:someone/model", "source": "timm"}, ["hf-hub:someone/model", "timm"]),
        ({"name": "fcn_resnet50", "source": "torchvision"}, ["fcn_resnet50 is not a classifier"]),
        ({"width": 16, "source": "torchvision"}, ["model.width", "torchvision"]),
        ({"width": 0}, ["model.width", "not 0"]),
        ({"pretrained": True}, ["model.pretrained", "the suite has no pretrained resnet18"]),
        ({"arguments": {"depth": 3}}, ["model.arguments", "model.width"]),
        (
            {"source": "torchvision", "arguments": {"depth": 3}},
            ["torchvision's resnet18", "unexpected keyword", "model.arguments"],
        ),
        (
            {"source": "torchvision", "arguments": {"depth": 3}, "pretrained": True},
            ["unexpected keyword", "check model.arguments"],
        ),
        (
            {"name": "vit_b_16", "source": "torchvision"},
            ["torchvision's vit_b_16", "3x32x32", "model.arguments"],
        ),
        (
            {"name": "deit_tiny_patch16_224", "source": "timm"},
            ["timm's deit_tiny_patch16_224", "3x32x32", "224"],
        ),
        ({"name": "resnet18", "source": "timm", "arguments": {"features_only": True}}, ["timm's resnet18"]),
    ],
)
def test_one_sentence_for_what_cannot_be(settings, parts):
    sentence = refused(**settings)
    assert all(part in sentence for part in parts), sentence


@pytest.mark.parametrize("source", ["timm", "torchvision"])
@pytest.mark.parametrize(
    "argument",
    ["checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "weights"],
)
def test_no_argument_loads_a_file(source, argument, tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"not": "read"}, path)
    sentence = refused(name="resnet18", source=source, arguments={argument: str(path)})
    assert (
        f"model.arguments.{argument}: weights are not loaded by an argument of {source}'s resnet18"
        in sentence
    )


def test_pretrained_weights_without_a_network(monkeypatch, tmp_path):
    def refuse(*arguments, **settings):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    sentence = refused(name="resnet18", source="torchvision", pretrained=True)
    assert "weights could not be fetched" in sentence and "no route to host" in sentence


def test_pretrained_weights_load_except_for_the_head(monkeypatch):
    torch.manual_seed(1)
    weights = torchvision.models.resnet18(num_classes=1000).state_dict()
    enum = torchvision.models.ResNet18_Weights
    monkeypatch.setattr(
        enum, "get_state_dict", lambda self, **options: weights if options["weights_only"] else None
    )
    model = build_model(ModelConfig(source="torchvision", pretrained=True), 10, SHAPE)
    assert torch.equal(model.layer4[1].conv2.weight, weights["layer4.1.conv2.weight"])
    assert model.fc.weight.shape == (10, 512)


def test_timm_s_weights_at_a_revision(hub):
    saved = {}
    for number, branch in enumerate(("main", "v1")):
        torch.manual_seed(number)
        saved[branch] = timm.create_model("resnet18", num_classes=1000).state_dict()
        save_file(saved[branch], hub("timm/resnet18.a1_in1k", f"{number}" * 40, branch) / "model.safetensors")
    config = ModelConfig(source="timm", pretrained=True)
    for chosen, branch in ((config, "main"), (replace(config, revision="v1"), "v1")):
        model = build_model(chosen, 10, SHAPE)
        assert torch.equal(model.layer4[1].conv2.weight, saved[branch]["layer4.1.conv2.weight"])
    assert hub_commit(config) == {"timm/resnet18.a1_in1k": "0" * 40}
    assert hub_commit(replace(config, revision="v1")) == {"timm/resnet18.a1_in1k": "1" * 40}


def test_a_revision_without_weights_on_the_hub_is_refused():
    assert "model.pretrained=true" in refused(source="timm", revision="v1")
    assert "model.pretrained=true" in refused(source="torchvision", pretrained=True, revision="v1")
    assert "where timm has none of resmlp" in refused(
        name="resmlp", source="timm", pretrained=True, revision="v1"
    )


def test_libraries_are_imported_only_when_asked():
    program = """
import sys
from cuttlefish.config.schema import ModelConfig
from cuttlefish.models import build_model
build_model(ModelConfig(width=8), 10, (3, 32, 32))
assert not {"timm", "torchvision"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.models", None)
    assert "model.source=timm needs timm" in refused(name="resnet18", source="timm")
