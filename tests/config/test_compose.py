"""What Hydra and OmegaConf refuse, told in one sentence with the nearest valid word."""

import shutil

import pytest

from cuttlefish.config.compose import compose_config
from cuttlefish.config.hydra_errors import sentence
from cuttlefish.errors import CuttlefishError
from tests.helpers.runs import CONF


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ("experiment=reduced/vgg19_cutlefish", "did you mean reduced/vgg19_cuttlefish?"),
        (
            "experiment=vgg19_cuttlefish",
            "there is no experiment=vgg19_cuttlefish (choose from figure1, table1, table2, table3, table4, table5, demo/cuttlefish, ",
        ),
        ("hydra/launcher=jobli", "there is no hydra/launcher=jobli (choose from basic"),
        ("modle=vgg19", "there is no key modle; did you mean model?"),
        ("debg=smoke", "there is no key debg; did you mean debug?"),
        ("epochs=3", "there is no key epochs; did you mean recipe.epochs?"),
        ("trainer.epochs=3", "there is no key trainer.epochs; did you mean recipe.epochs?"),
        ("recipe.schedule.warmup=3", "did you mean recipe.schedule.warmup_steps?"),
        (
            "method=cuttlefish method.thresold=2",
            "there is no key method.thresold; did you mean method.threshold?",
        ),
        ("method.k=5", "there is no key method.k (choose from name, preset, track_ranks, interval, match)"),
        (
            "method=cuttlefish method.ranks.conv1=5",
            "method.ranks has no keys yet; give it whole, as in method.ranks={conv1: ...}",
        ),
        ("preset=refrence", "there is no preset=refrence (choose from default, "),
        ("preset=refrence", "did you mean reference?"),
        (
            "+experiment=table1",
            "experiment has a choice already, which experiment=table1 replaces; leave out the +",
        ),
        ("~data", "data must be one choice by name"),
        ("model=[resnet18,vgg19]", "model must be one choice by name"),
        ("seed=1,2", "seed=1,2 gives several values; add -m"),
        ("seed=[1", "cannot read 'seed=[1' on the command line"),
    ],
)
def test_a_refused_composition(composed, conf, overrides, told):
    with pytest.raises(CuttlefishError) as caught:
        composed(*overrides.split())
    said = str(caught.value)
    assert told in said and "\n" not in said and said == sentence(caught.value.__cause__, [conf])


@pytest.mark.parametrize(
    ("overridden", "told"),
    [
        (
            "/debug: smoke",
            "experiment/mine overrides debug, which is chosen after it; give debug=... on the command line",
        ),
        ("/modle: vgg19", "experiment/mine overrides modle, which is not a group .*did you mean model"),
    ],
)
def test_a_refused_override_in_a_file(tmp_path, overridden, told):
    shutil.copytree(CONF, tmp_path, dirs_exist_ok=True)
    text = f"# @package _global_\ndefaults:\n  - _self_\n  - override {overridden}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    with pytest.raises(CuttlefishError, match=told):
        compose_config(tmp_path, ["experiment=mine"])


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ("+foo=1", "there is no key foo"),
        ("~trainer", "trainer must be one choice by name"),
        ("method=cuttlefish method.preset=paper", "method.preset is called preset now; write preset=paper"),
        ("model=timm", "model.name must be given"),
        ("trainer.precision=fp16", "trainer.precision must be one of fp32, tf32, bf16, fp64, not 'fp16'"),
        ("trainer=deterministic trainer.precision=tf32", "trainer.precision=tf32 needs trainer.device=cuda"),
        ("trainer.fsdp=true", "trainer.fsdp=true: parameters are not sharded, for a switch changes them"),
        ("method=imp preset=paper", "imp has no preset paper (choose from default, equal_budget, reference)"),
        (
            "method=cuttlefish method.k=null",
            "method.k cannot be null; it is profile unless another value is given",
        ),
        ("model=resnet18 model.name=vgg19", "would miss the values that go with vgg19; write model=vgg19"),
        (
            "model=timm model.name=resnet50",
            "would miss the values that go with resnet50; write model=resnet50",
        ),
    ],
)
def test_a_refused_config(composed, overrides, told):
    with pytest.raises(CuttlefishError) as caught:
        composed(*overrides.split())
    assert told in str(caught.value) and "\n" not in str(caught.value)
