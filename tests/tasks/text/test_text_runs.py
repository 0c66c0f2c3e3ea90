"""Whole runs on sentences: a little random BERT that reads characters."""

from pathlib import Path

import pytest
import torch
import yaml

from cuttlefish.config.schema import ModelConfig
from cuttlefish.config.validate import convert, load_config
from cuttlefish.engine.run import resolve_run
from cuttlefish.engine.saving.saver import Saver
from cuttlefish.engine.session import Session
from cuttlefish.errors import CuttlefishError
from cuttlefish.models import build_model
from cuttlefish.record.folder import read_epochs
from cuttlefish.record.record import validate_record
from cuttlefish.replay import main as replay
from cuttlefish.tasks.registry import data_set
from cuttlefish.worker import run_config
from tests.helpers.comparing import assert_alike, differences

CONF = Path(__file__).resolve().parents[3] / "conf"
MODEL = yaml.safe_load((CONF / "model" / "bert_tiny.yaml").read_text())
CUTTLEFISH = {"name": "cuttlefish", "k": 1, "switch_epoch": 1, "rank_ratio": 0.25}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CUTTLEFISH_CACHE", str(tmp_path / "cache"))


def little(folder, root, task="rte", **sections):
    given = {
        "model": MODEL,
        "data": {"name": task, "kind": "glue", "root": str(root), "verify": False, "max_length": 64},
        "recipe": {
            "epochs": 2, "batch_size": 8, "eval_batch_size": 8, "clip_norm": 1.0,
            "optimizer": {"name": "adamw", "weight_decay": 0.0},
            "schedule": {"name": "linear", "base_lr": 1e-3, "peak_lr": 1e-3},
        },
        "trainer": {"device": "cpu", "deterministic": True, "threads": 1},
        "logger": {"console": False, "plots": False},
        "run_dir": str(folder),
    }  # fmt: skip
    for name, values in sections.items():
        given[name] = values if name == "model" else {**given.get(name, {}), **values}
    return load_config(given)


@pytest.mark.parametrize(
    ("folder", "data", "metrics"),
    [
        ("RTE", "rte", ["accuracy"]),
        ("MRPC", "mrpc", ["f1", "accuracy"]),
        ("CoLA", "cola", ["matthews", "accuracy"]),
        ("STS-B", "stsb", ["spearman", "pearson"]),
    ],
)
def test_each_kind_of_task_trains(write_glue, tmp_path, folder, data, metrics):
    record = run_config(little(tmp_path / "run", write_glue(folder, rows=21), data))
    assert record.status == "finished" and validate_record(record) == []
    assert record.metric == metrics[0] and set(record.metrics) == set(metrics)
    assert (record.accuracy_final is None) == ("accuracy" not in metrics)
    rows = read_epochs(tmp_path / "run")
    assert rows[-1]["metrics"] == record.metrics


def test_mnli_reports_both_development_sets(write_glue, tmp_path):
    root = write_glue("MNLI", rows=9, splits=("train", "dev_matched", "dev_mismatched"))
    record = run_config(little(tmp_path / "run", root, "mnli"))
    assert set(record.metrics) == {"accuracy", "accuracy_mismatched"} and record.metric == "accuracy"


class Stopped(Exception):
    pass


def stop_after(patch, steps):
    """Make the trainer save and fall over after so many steps of the run, within an epoch."""
    handle, taken = Saver.handle_requests, []

    def handling(self, sums=None):
        if sums is None:
            return handle(self)
        taken.append(1)
        if len(taken) < steps:
            return handle(self, sums)
        self.training.progress.sums = sums.tolist()
        self.save_within_epoch()
        raise Stopped

    patch.setattr(Saver, "handle_requests", handling)


def test_a_run_goes_on_to_the_same_bits_at_any_step(write_glue, tmp_path, monkeypatch):
    root = write_glue("MRPC", rows=21)

    def config(name):
        return little(tmp_path / name, root, "mrpc", method=CUTTLEFISH)

    whole = run_config(config("whole"))
    assert whole.switch_epoch == 1 and whole.ranks
    for steps in (1, 4):  # of 3 an epoch: before and behind the switch
        with monkeypatch.context() as patch:
            stop_after(patch, steps)
            with pytest.raises(Stopped):
                run_config(config(f"part{steps}"))
        again = run_config(config(f"part{steps}"))
        assert differences(tmp_path / f"part{steps}", again, tmp_path / "whole", whole) == []


def test_two_processes_match_one(write_glue, tmp_path):
    root = write_glue("STS-B", rows=17)  # the last batch of 8 is one sentence: one process has none of it
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    exact = {
        "model": MODEL | {"arguments": MODEL["arguments"] | still},
        "trainer": {"precision": "fp64"},
        "method": CUTTLEFISH,
    }
    alone = run_config(little(tmp_path / "alone", root, "stsb", **exact))
    exact["trainer"] |= {"devices": 2}
    together = run_config(little(tmp_path / "together", root, "stsb", **exact))
    assert together.world_size == 2 and together.metrics == pytest.approx(alone.metrics)
    assert_alike(tmp_path / "alone", alone, tmp_path / "together", together)


def test_a_record_is_replayed(write_glue, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_config(little(tmp_path / "run", write_glue("RTE", rows=16)))
    assert replay([f"replay={tmp_path / 'run'}"]) == 0
    told = capsys.readouterr().out
    assert "expected: the same bits" in told and "differs" not in told


def test_accumulating_changes_only_rounding(write_glue, tmp_path):
    root = write_glue("RTE", rows=20)
    still = {"model": MODEL | {"arguments": MODEL["arguments"] | {"hidden_dropout_prob": 0.0,
             "attention_probs_dropout_prob": 0.0}}, "trainer": {"precision": "fp64"}}  # fmt: skip
    whole = run_config(little(tmp_path / "whole", root, **still))
    parts = run_config(little(tmp_path / "parts", root, recipe={"accumulate": 3}, **still))
    assert parts.run_key != whole.run_key
    assert parts.loss_final == pytest.approx(whole.loss_final, rel=1e-9)


def test_gradients_are_clipped(write_glue, tmp_path):
    root = write_glue("RTE", rows=20)
    sgd = {"optimizer": {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0}, "epochs": 1, "batch_size": 20}
    norm, rate = 1e-3, 1e-3
    config = little(tmp_path / "run", root, recipe=sgd | {"clip_norm": norm})
    session = Session(resolve_run(config))
    before = torch.cat([weight.detach().flatten().clone() for weight in session.context.model.parameters()])
    session.train()
    after = torch.cat([weight.detach().flatten() for weight in session.context.model.parameters()])
    assert float((after - before).norm()) == pytest.approx(rate * norm, rel=1e-2)


def test_padding_never_changes_a_result(write_glue):
    """The logits of a sentence do not depend on its batch."""
    root = write_glue("RTE", rows=30)
    config = little("unused", root)
    task = data_set(config.data).task(config, torch.device("cpu"), torch.float32)
    torch.manual_seed(0)
    model = build_model(convert(MODEL, ModelConfig, "model"), 2, None).eval()
    with torch.no_grad():
        for index in range(0, 30, 7):
            one = torch.tensor([index])
            alone = model(**task.train.gather(one, int(task.train._lengths[index])).inputs)
            others = model(**task.train.gather(torch.tensor([3, index, 11]), 64).inputs)[1:2]
            torch.testing.assert_close(alone, others, atol=1e-5, rtol=0)


def test_validation_is_a_fixed_part_of_the_training_set(write_glue):
    root = write_glue("STS-B", rows=40)
    config = little("unused", root, "stsb", data={"evaluate_on": "validation"})
    tasks = [data_set(config.data).task(config, torch.device("cpu"), torch.float32) for _ in range(2)]
    assert [task.train_size for task in tasks] == [30, 30]  # a tenth of each tenth of 4, at least one
    held_out = [task.evaluated[""].targets.tolist() for task in tasks]
    assert held_out[0] == held_out[1] and len(held_out[0]) == 10


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"max_length": 200}}, "data.max_length=200 is above the 128 positions of bert_tiny"),
        ({"model": MODEL | {"arguments": MODEL["arguments"] | {"vocab_size": 50}}}, "they do not belong together"),
        ({"model": {"name": "resnet18", "source": "suite"}}, "resnet18 takes images and the data set has sentences"),
        ({"recipe": {"batch_size": 64}}, "above the 16 sentences"),
    ],
)  # fmt: skip
def test_what_does_not_fit_ends_before_training(write_glue, tmp_path, changes, said):
    config = little(tmp_path / "run", write_glue("RTE", rows=16), **changes)
    with pytest.raises(CuttlefishError) as caught:
        run_config(config)
    assert said in str(caught.value) and not (tmp_path / "run" / "checkpoints").exists()


def test_images_for_a_text_model_are_refused(tmp_path):
    config = {
        "model": MODEL,
        "data": {"name": "synthetic", "kind": "synthetic"},
        "recipe": {"batch_size": 8},
        "run_dir": str(tmp_path / "run"),
    }
    with pytest.raises(CuttlefishError, match="reads text and the data set has images"):
        run_config(load_config(config))


def test_paths_are_not_in_the_key(tmp_path):
    keys = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.csv").write_text("text,label\n" + "a good one,1\na bad one,0\n" * 8)
        data = {"name": "mine", "kind": "text", "max_length": 32}
        data |= {"train": str(tmp_path / name / "t.csv"), "eval": str(tmp_path / name / "t.csv")}
        keys.append(resolve_run(load_config({"model": MODEL, "data": data, "recipe": {"batch_size": 8}})).key)
    assert keys[0] == keys[1]
