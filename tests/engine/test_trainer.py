"""The trainer's own promises: schedules as audited, forks, divergence, debugging modes, what a run leaves
behind."""

import json
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cuttlefish.engine import session
from cuttlefish.engine.failures import check_training_forward
from cuttlefish.engine.saving.checkpoint import BEFORE_SWITCH, load_checkpoint, newest_checkpoint
from cuttlefish.engine.session import Session
from cuttlefish.engine.step import StepRunner
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.profiling import timing
from cuttlefish.methods import load_method
from cuttlefish.record.folder import read_epochs, read_ranks
from cuttlefish.record.record import read_record
from cuttlefish.tasks.base import Batch
from cuttlefish.worker import run_config
from tests.helpers.runs import EPOCHS, METHODS, little_config
from tests.helpers.stopping import stopping_after


def test_run_folder(tmp_path):
    record = run_config(little_config(tmp_path, "cuttlefish", logger__plots=True))
    rows = read_epochs(tmp_path)
    assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))
    assert rows[1]["params_total"] == record.params_full > rows[2]["params_total"] == record.params_total
    assert rows[-1]["test_accuracy"] == record.accuracy_final and record.accuracy_best == max(
        row["test_accuracy"] for row in rows
    )
    ranks = read_ranks(tmp_path)
    assert {row["epoch"] for row in ranks} == {0, 1, 2} and {row["layer"] for row in ranks} >= set(
        record.ranks
    )
    assert (
        record.switch_epoch == 2 and record.switch_reason == "fixed" and record.macs_final < record.macs_full
    )
    assert {"train", "ranks", "switch", "data", "evaluate", "checkpoint"} <= set(record.seconds)
    charged = sum(
        value
        for part, value in record.seconds.items()
        if part not in ("data", "evaluate", "checkpoint", "compile")
    )
    assert record.compute_seconds == pytest.approx(charged) and record.compute_seconds < record.wall_seconds
    assert (tmp_path / "resolved.yaml").exists() and len(
        list((tmp_path / "checkpoints").glob("epoch_*.pt"))
    ) == 2
    assert list((tmp_path / "plots").glob("*.svg")) and list((tmp_path / "plots").glob("*.png"))
    assert read_record(tmp_path).run_key == record.run_key


def test_the_second_warm_up(tmp_path):
    run_config(little_config(tmp_path, "cuttlefish", recipe__schedule__milestones=[1.0]))
    assert [row["lr"] for row in read_epochs(tmp_path)] == pytest.approx([0.01, 0.05, 0.01, 0.05])
    run_config(
        little_config(
            tmp_path / "not", "cuttlefish", recipe__schedule__milestones=[1.0], method__rewarm=False
        )
    )
    assert [row["lr"] for row in read_epochs(tmp_path / "not")] == pytest.approx([0.01, 0.05, 0.05, 0.05])


def test_same_seed_same_run_other_seed_another(tmp_path):
    losses = [
        run_config(little_config(tmp_path / str(i), seed=seed)).loss_final for i, seed in enumerate((5, 5, 6))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_a_deterministic_profile_uses_no_clock(tmp_path):
    record = run_config(little_config(tmp_path, "cuttlefish", method__k="profile", method__profile_repeats=2))
    profile = json.loads((tmp_path / "profile.json").read_text())
    assert profile["source"] == "cost model" and record.profile is not None and record.k == profile["k"]


@pytest.mark.parametrize("steps", [0, 5], ids=["before the first checkpoint", "after it"])
def test_profile_is_measured_once_and_reused(tmp_path, monkeypatch, steps):
    config = little_config(
        tmp_path, "cuttlefish", method__k="profile", method__profile_repeats=2, trainer__deterministic=False
    )
    measured, measure = [], timing.measure
    monkeypatch.setattr(timing, "measure", lambda *arguments: (measured.append(None), measure(*arguments))[1])

    with monkeypatch.context() as patch:
        patch.setattr(StepRunner, "step", stopping_after(steps))
        with pytest.raises(KeyboardInterrupt):
            run_config(config)
    assert bool(list((tmp_path / "checkpoints").glob("*.pt"))) == (steps > 0)
    profile, times = (tmp_path / "profile.json").read_text(), len(measured)
    assert times > 0 and json.loads(profile)["source"] == "timed"
    record = run_config(config)
    assert len(measured) == times and (tmp_path / "profile.json").read_text() == profile
    assert record.k == json.loads(profile)["k"]


def test_fork_from_before_the_switch(tmp_path):
    run_config(little_config(tmp_path / "origin", "cuttlefish"))
    beginning = load_checkpoint(tmp_path / "origin" / "checkpoints" / BEFORE_SWITCH)
    assert beginning["progress"]["trained"] == 2
    arm = run_config(
        little_config(
            tmp_path / "arm", "cuttlefish", method__switch_epoch=3, fork_from=str(tmp_path / "origin")
        )
    )
    alone = run_config(little_config(tmp_path / "alone", "cuttlefish", method__switch_epoch=3))
    assert arm.forked_from is not None and arm.epochs_trained == EPOCHS
    assert (arm.loss_final, arm.ranks) == (alone.loss_final, alone.ranks), (
        "a fork is the same run, begun later"
    )
    spent = sum(sections["train"] for sections in beginning["clock"]["seconds"].values())
    assert arm.seconds["train"] > spent > 0, "and is charged for its beginning"
    dense = run_config(little_config(tmp_path / "dense", fork_from=str(tmp_path / "origin")))
    whole = run_config(little_config(tmp_path / "whole"))
    assert dense.loss_final == whole.loss_final


def test_fork_from_full_rank_takes_its_rank_history(tmp_path):
    run_config(little_config(tmp_path / "origin", method__track_ranks=True))
    checkpoint = tmp_path / "origin" / "checkpoints" / f"epoch_{EPOCHS - 1:05d}.pt"
    arm = run_config(
        little_config(tmp_path / "arm", "cuttlefish", method__switch_epoch=3, fork_from=str(checkpoint))
    )
    alone = run_config(little_config(tmp_path / "alone", "cuttlefish", method__switch_epoch=3))
    assert arm.ranks == alone.ranks


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"seed": 9}, "seed differs"),
        ({"model__width": 16}, "model differs"),
        ({"fork_from": "nowhere"}, "no checkpoint"),
    ],
)
def test_forks_that_do_not_fit(tmp_path, overrides, sentence):
    run_config(little_config(tmp_path / "origin", "cuttlefish"))
    overrides = {"fork_from": str(tmp_path / "origin")} | overrides
    with pytest.raises(CuttlefishError, match=sentence):
        run_config(little_config(tmp_path / "arm", **overrides))
    assert not (tmp_path / "arm").exists()


ALONE = [method for method in METHODS if load_method(method).no_fork]


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    run_config(little_config(folder, recipe__epochs=1, trainer__max_steps=1))
    return folder


@pytest.mark.parametrize("method", ALONE)
def test_methods_that_start_from_no_other_are_refused(method, dense, tmp_path):
    assert {"imp", "eb", "xnor", "si_fd", "grasp"} <= set(ALONE)
    with pytest.raises(CuttlefishError, match=f"{method} .*, so it cannot start from a run of full_rank"):
        run_config(little_config(tmp_path / "arm", method, fork_from=str(dense)))
    assert not (tmp_path / "arm").exists()


@pytest.mark.parametrize("method", ["full_rank", "cuttlefish"])
@pytest.mark.parametrize("lr", [1e15, 1e30])
def test_a_blow_up_in_the_last_step_is_no_success(method, lr, tmp_path):
    """The training loss is that of the weights before it."""
    config = little_config(
        tmp_path,
        method,
        recipe__epochs=1,
        recipe__schedule={"base_lr": lr, "peak_lr": lr},
        trainer__max_steps=1,
        **({"method__switch_epoch": 0} if method == "cuttlefish" else {}),
    )
    for _ in range(2):
        with pytest.raises(CuttlefishError, match=r"became (nan|inf|NaN or infinite) in epoch 1 \(‖.*"):
            run_config(config)
        record = json.loads((tmp_path / "record.json").read_text())
        assert record["status"] == "failed" and record["accuracy_final"] is None
    assert not list((tmp_path / "checkpoints").glob("epoch*"))


def test_a_switch_that_would_factorize_nothing_is_none(tmp_path):
    """Neither optimizer nor warm-up begin again, and the record says why."""
    full = {"method__rank_ratio": 1.0, "method__frobenius_decay": 0.0}
    record = run_config(little_config(tmp_path / "declined", "cuttlefish", **full))
    dense = run_config(little_config(tmp_path / "dense"))
    assert (record.switch_epoch, record.switch_reason, record.ranks) == (None, "declined", {})
    assert "saves nothing" in record.extra["kept_dense"]["layer4.0.conv1"]
    assert record.loss_final == dense.loss_final and record.params_total == record.params_full


class Heads(nn.Module):
    """As torchvision's GoogLeNet: more outputs in train mode only."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 12 * 12, 4)

    def forward(self, x):
        y = self.fc(x.flatten(1))
        return (y, y) if self.training else y


def normalised_vector():
    """Batch norm over nothing but the samples, of which it needs two."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))


@pytest.mark.parametrize(
    ("build", "images", "sentence"),
    [
        (Heads, 56, "returns tuple in training, where 4 logits for each image are needed"),
        (
            normalised_vector,
            49,
            "cannot be trained on a batch of 1 image, the smallest of an epoch .*batch_size",
        ),
    ],
)
def test_what_fails_in_train_mode_only_is_refused_before(build, images, sentence, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "build_model", lambda *_: build())
    with pytest.raises(CuttlefishError, match=sentence):
        run_config(little_config(tmp_path / "run", data__train_images=images))
    assert not (tmp_path / "run").exists()
    assert (build is Heads) or run_config(little_config(tmp_path / "run")).status == "finished"


def test_looking_at_train_mode_changes_nothing():
    model = nn.Sequential(nn.Dropout(0.5), normalised_vector()).eval()
    before, random = deepcopy(model.state_dict()), torch.get_rng_state()
    for inputs in (torch.randn(2, 3, 12, 12), torch.ones(2, 3, 12, 12)):
        torch.set_rng_state(random)
        batch = Batch(inputs, torch.zeros(2), 2)
        task = SimpleNamespace(classes=4, unit="image", example_batch=lambda size, batch=batch: batch)
        check_training_forward(model, task, 2, "a network")
    assert torch.equal(random, torch.get_rng_state()) and not model[0].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_divergence_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(CuttlefishError, match=r"the loss became (nan|inf) in epoch [1-4] \(‖.*"):
        run_config(little_config(tmp_path, recipe__schedule__peak_lr=1e30, recipe__schedule__base_lr=0.01))
    record = read_record(tmp_path)
    assert record.status == "failed" and "the loss became" in record.error
    state = newest_checkpoint(tmp_path / "checkpoints")
    assert state["progress"]["trained"] == 1 and all(
        torch.isfinite(tensor).all() for tensor in state["model"].values()
    )


def test_interrupted_is_recorded(tmp_path, monkeypatch):
    def interrupt(session):
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "_counts", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_config(little_config(tmp_path))
    assert read_record(tmp_path).status == "interrupted"


def test_a_folder_of_another_config(tmp_path):
    run_config(little_config(tmp_path))
    with pytest.raises(CuttlefishError, match="holds run .* and this is run .*: choose another run_dir"):
        run_config(little_config(tmp_path, seed=1))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"trainer__device": "cuda"}, "torch sees no GPU"),
        ({"method__k": 40}, "K = 40 leading dense layers is out of range"),
        ({"method__extra_bn": True}, "exclude each other"),
        ({"method__switch_epoch": 4}, "switch_epoch=4 lies outside the run's 4 epochs"),
        ({"method__name": "cuttelfish"}, "no method 'cuttelfish'"),
        ({"method__swich_epoch": 2}, "switch_epoch"),
        ({"model__name": "resnet19"}, "resnet19"),
    ],
)
def test_bad_input_leaves_nothing_behind(tmp_path, overrides, sentence):
    if overrides == {"trainer__device": "cuda"} and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(CuttlefishError, match=sentence):
        run_config(little_config(tmp_path / "run", "cuttlefish", **overrides))
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CuttlefishError, match="cannot write to the run folder"):
        run_config(little_config(tmp_path / "file" / "run"))


def test_overfit_learns_one_batch(tmp_path):
    record = run_config(
        little_config(tmp_path, trainer__overfit=True, recipe__epochs=12, recipe__schedule__peak_lr=0.05)
    )
    assert record.loss_final < 0.3


def test_torch_profile_writes_a_trace(tmp_path):
    run_config(little_config(tmp_path, trainer__torch_profile=True, recipe__batch_size=8))
    assert (tmp_path / "trace.json").exists() and "conv" in (tmp_path / "operators.txt").read_text()


def test_last_partial_batch_and_max_steps(tmp_path):
    run_config(little_config(tmp_path / "all", recipe__epochs=2))
    run_config(little_config(tmp_path / "two", recipe__epochs=2, trainer__max_steps=2))
    assert read_epochs(tmp_path / "all")[0]["train_accuracy"] * 56 % 100 == pytest.approx(0, abs=1e-6), (
        "56 images in batches of 16"
    )
    assert read_epochs(tmp_path / "two")[0]["train_accuracy"] * 32 % 100 == pytest.approx(0, abs=1e-6)


def test_keep_dense_beyond_break_even(tmp_path):
    record = run_config(little_config(tmp_path, "cuttlefish", method__rank_ratio=1.0))
    assert record.ranks == {} and record.params_total == record.params_full
    assert record.switch_epoch is None and record.switch_reason == "declined"
    assert "saves nothing (break-even" in record.extra["kept_dense"]["layer4.1.conv2"]
