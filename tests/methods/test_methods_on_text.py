"""Every method on a text model: it trains, or one sentence says why not, as docs/training.md has it."""

import re
from dataclasses import replace

import pytest
import torch
import yaml

from cuttlefish.config.recipe import ScheduleConfig
from cuttlefish.config.validate import load_config
from cuttlefish.engine.run import resolve_run
from cuttlefish.engine.session import Session
from cuttlefish.errors import CuttlefishError
from cuttlefish.record.folder import read_epochs
from cuttlefish.record.record import validate_record
from cuttlefish.worker import run_config
from tests.helpers.comparing import differences
from tests.helpers.runs import CONF, METHODS, composed_settings
from tests.tasks.text.test_text_runs import Stopped, stop_after

pytest.importorskip("transformers", reason="the extra `text` is not installed")
MODEL = yaml.safe_load((CONF / "model/bert_tiny.yaml").read_text())
REFUSED = {
    "si_fd": "this model has no convolution to factorize behind its first one",
    "grasp": "grasp scores weights on samples of every class with inputs of one shape",
    "eb": "eb ranks channels by their batch norms, and this model has none",
    "xnor": "XNOR binarises the convolutions between the first and the last, and this model has none there",
}
SETTINGS = METHODS | {
    "cuttlefish": {"switch_epoch": 2, "rank_ratio": 0.25},
    "pufferfish": {"k": 1, "switch_epoch": 2},
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("CUTTLEFISH_CACHE", str(tmp_path / "cache"))
    rows = [f"it is {'good' if n % 3 else 'bad'} {n},{int(n % 3 > 0)}" for n in range(24)]
    (tmp_path / "sentences.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return tmp_path


def little(root, method, knobs, epochs=4, name="run"):
    sentences = str(root / "sentences.csv")
    return load_config(
        {
            "model": MODEL,
            "data": {"name": "mine", "kind": "text", "max_length": 32, "train": sentences, "eval": sentences},
            "recipe": {
                "epochs": epochs,
                "batch_size": 8,
                "optimizer": {"name": "adamw"},
                "schedule": {"name": "linear", "base_lr": 2e-3, "peak_lr": 2e-3},
            },
            "trainer": {"device": "cpu", "deterministic": True, "threads": 1},
            "logger": {"console": False, "plots": False},
            "method": {"name": method} | knobs,
            "run_dir": str(root / name),
        }
    )


@pytest.mark.parametrize("method", sorted(SETTINGS))
def test_it_trains_or_says_why_not(root, method):
    config = little(root, method, SETTINGS[method])
    if method in REFUSED:
        with pytest.raises(CuttlefishError) as caught:
            run_config(config)
        sentence = str(caught.value)
        assert sentence.startswith(REFUSED[method]) and "\n" not in sentence
        assert not (root / "run" / "checkpoints").exists()
        return
    record = run_config(config)
    assert record.status == "finished" and validate_record(record) == []
    assert 0 <= record.metrics["accuracy"] <= 100
    if method in ("cuttlefish", "pufferfish"):
        assert len(record.ranks) == 12 and all(".encoder." in name for name in record.ranks)
        assert record.params_total < record.params_full and record.k == 1


def test_the_docs_say_which_methods_work_on_text():
    section = (CONF.parent / "docs/training.md").read_text().split("## Text models")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (yes|no)\b", section, re.M))
    assert rows == {method: "no" if method in REFUSED else "yes" for method in METHODS}


def test_the_public_codes_schedule_and_frozen_layers(root):
    """One epoch to learning rate 0, then q, k, v and attention output at 0.45 under another peak; FFN frozen."""
    preset = yaml.safe_load(
        (CONF / "cell/method_preset_model/cuttlefish/reference-bert_base.yaml").read_text()
    )
    record = run_config(
        little(root, "cuttlefish", preset | {"k": "paper", "paper_k": 1, "keep_dense": False})
    )
    assert record.switch_epoch == 1 and len(record.ranks) == 8 and set(record.ranks.values()) == {14}
    assert all(".attention." in name for name in record.ranks)
    frozen = 2 * (2 * 32 * 64 + 64 + 32)
    assert record.params_total - record.params_trainable == frozen
    rates = [row["lr"] for row in read_epochs(root / "run")]
    assert rates == pytest.approx([2e-3 / 3, 4e-5 * 7 / 9, 4e-5 * 4 / 9, 4e-5 / 9]), "of the last of 3 steps"


def test_frozen_layers_stay_as_they_are(root):
    patterns = ["*.intermediate.dense"]
    knobs = {"switch_epoch": 1, "rank_ratio": 0.25, "dense": patterns, "freeze": patterns}
    session = Session(resolve_run(little(root, "cuttlefish", knobs, epochs=3)))
    seen = []
    step_end = session.method.on_step_end

    def watch(model):
        name = "network.bert.encoder.layer.0.intermediate.dense.weight"
        seen.append(dict(model.named_parameters())[name].detach().clone())
        step_end(model)

    session.method.on_step_end = watch
    session.train()
    assert not torch.equal(seen[0], seen[2]) and all(torch.equal(seen[2], later) for later in seen[3:])


def test_the_reference_preset_of_bert_composes():
    chosen = composed_settings("cuttlefish", "model=bert_base", "preset=reference")
    assert (chosen.k, chosen.paper_k, chosen.switch_epoch, chosen.rank_ratio) == ("paper", 1, 1, 0.45)
    assert chosen.restart_lr == 4e-5 and chosen.freeze == chosen.dense and not chosen.keep_dense
    assert composed_settings("cuttlefish", "model=bert_base").rank_ratio is None


def test_a_schedule_of_its_own_needs_a_linear_one(root):
    config = little(root, "cuttlefish", {"switch_epoch": 1, "rank_ratio": 0.25, "restart_lr": 1e-3})
    config = replace(config, recipe=replace(config.recipe, schedule=ScheduleConfig(name="cosine")))
    with pytest.raises(
        CuttlefishError, match="restart_lr=0.001 needs recipe.schedule.name=linear, not cosine"
    ):
        run_config(config)
    with pytest.raises(CuttlefishError, match="restart_lr.* needs switch_epoch"):
        run_config(little(root, "cuttlefish", {"restart_lr": 1e-3}))


def test_the_public_codes_run_goes_on_to_the_same_bits(root, monkeypatch):
    preset = yaml.safe_load(
        (CONF / "cell/method_preset_model/cuttlefish/reference-bert_base.yaml").read_text()
    )
    knobs = preset | {"k": 1, "keep_dense": False}
    whole = run_config(little(root, "cuttlefish", knobs, epochs=3, name="whole"))
    for steps in (2, 5):  # of 3 an epoch: before the switch and behind it
        with monkeypatch.context() as patch:
            stop_after(patch, steps)
            with pytest.raises(Stopped):
                run_config(little(root, "cuttlefish", knobs, epochs=3, name=f"part{steps}"))
        again = run_config(little(root, "cuttlefish", knobs, epochs=3, name=f"part{steps}"))
        assert differences(root / f"part{steps}", again, root / "whole", whole) == []
        assert again.params_trainable == whole.params_trainable < whole.params_total
