"""debug=smoke of what the command line offers: methods, data sets, and models by library name.

The full product model × data × method runs in `make test-slow`.
"""

from itertools import product
from pathlib import Path

import pytest

from cuttlefish.config.compose import compose_config
from cuttlefish.worker import run_config

CONF = Path(__file__).resolve().parent.parent / "conf"
METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
MODELS = {
    "resnet18": [],
    "vgg19": [],
    "timm": ["model.name=resnet10t"],
    "torchvision": ["model.name=resnet18"],
}


def smoke(folder, *words):
    config = compose_config(
        CONF, ["debug=smoke", "logger=quiet", f"run_dir={folder}", "trainer.device=cpu", *words]
    )
    return run_config(config)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_does_everything_it_does(method, tmp_path):
    record = smoke(tmp_path, "data=synthetic", f"method={method}")
    assert record.status == "finished" and record.scale == "smoke"
    assert record.git_commit is not None or not (CONF.parent / ".git").exists()
    if method in ("cuttlefish", "pufferfish"):
        assert record.switch_epoch == 2 and len(record.ranks) > 10, "the switch must really happen"


@pytest.mark.parametrize("data", ["digits", "synthetic"])
@pytest.mark.parametrize("model", ["vgg19", "timm"])
def test_data_and_models(model, data, tmp_path):
    assert (
        smoke(tmp_path, f"data={data}", f"model={model}", *MODELS[model], "method=cuttlefish").switch_epoch
        == 2
    )


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("data", "words"),
    [("cifar10", []), ("cifar100", ["data.images_per_class=2"]), ("svhn", ["data.verify=false"])],
)
def test_real_data(data, words, tmp_path):
    record = smoke(tmp_path, f"data={data}", "model=vgg19", "method=cuttlefish", *words)
    assert record.switch_epoch == 2 and record.params_total != record.params_full


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "data", "method"), list(product(MODELS, ["digits", "synthetic"], METHODS)), ids=str
)
def test_the_whole_product(model, data, method, tmp_path):
    from cuttlefish.errors import CuttlefishError

    try:
        record = smoke(tmp_path, f"model={model}", f"data={data}", f"method={method}", *MODELS[model])
    except CuttlefishError as refused:
        # A method may refuse a network it cannot treat, but only before training and in one sentence.
        assert "\n" not in str(refused) and not (tmp_path / "record.json").exists()
    else:
        assert record.status == "finished"


@pytest.mark.slow
def test_compiled(tmp_path):
    record = smoke(tmp_path, "data=synthetic", "method=cuttlefish", "trainer.compile=true")
    assert record.status == "finished" and record.seconds["compile"] > 0 and record.switch_epoch == 2
