"""A method may be asked between the steps of an epoch, and switch there."""

import pytest

from cuttlefish.engine.saving.checkpoint import load_checkpoint
from cuttlefish.engine.step import StepRunner
from cuttlefish.errors import CuttlefishError
from cuttlefish.record.folder import read_epochs, read_ranks
from cuttlefish.record.record import validate_record
from cuttlefish.worker import run_config
from tests.helpers.comparing import assert_alike, differences
from tests.helpers.runs import EXACT, little_config
from tests.helpers.stopping import stopping_after

INTERVAL = {"method__interval": 3, "method__switch_epoch": 2, "recipe__epochs": 3}
"""Of epochs of 4 steps: the ranks are measured before steps 0, 3 and 6, and there is the switch."""


LINEAR = {"recipe__schedule": {"name": "linear", "base_lr": 1e-9, "peak_lr": 0.01, "warmup_fraction": 0.25}}


def test_the_schedule_begins_again_where_the_switch_is(tmp_path, monkeypatch):
    rates, step = [], StepRunner.step
    monkeypatch.setattr(
        StepRunner, "step", lambda runner, *given: (rates.append(runner.lr), step(runner, *given))[1]
    )
    run_config(little_config(tmp_path, "cuttlefish", **INTERVAL, **LINEAR))
    line = [0.01 * min(step / 3, (12 - step) / 9) for step in range(12)]
    risen = [0.01 * (step - 6) / 3 for step in range(12)]
    assert rates == pytest.approx(
        line[:6] + [min(*pair) for pair in zip(line[6:], risen[6:], strict=True)], abs=1e-8
    )


def test_ranks_and_the_switch_by_steps(tmp_path):
    record = run_config(little_config(tmp_path, "cuttlefish", **INTERVAL))
    assert (record.switch_epoch, record.switch_step) == (1, 6) and record.ranks
    rows = read_ranks(tmp_path)
    assert [(row["epoch"], row["step"]) for row in rows if row["layer"] == "layer4.0.conv1"] == [
        (0, 0),
        (0.75, 3),
        (1.5, 6),
    ]
    sizes = [row["params_total"] for row in read_epochs(tmp_path)]
    assert sizes[0] == record.params_full > sizes[1] == sizes[2] == record.params_total
    assert validate_record(record) == []


def test_epochs_as_intervals_are_epochs(tmp_path):
    """Four steps an interval are an epoch, to the bit."""
    one = run_config(little_config(tmp_path / "epochs", "cuttlefish"))
    other = run_config(little_config(tmp_path / "steps", "cuttlefish", method__interval=4))
    assert (one.loss_final, one.ranks, one.switch_step) == (other.loss_final, other.ranks, 8)
    assert one.run_key != other.run_key and read_ranks(tmp_path / "epochs") == read_ranks(tmp_path / "steps")


def test_full_rank_logs_its_ranks_by_steps_and_resumes_them(tmp_path, monkeypatch):
    settings = {"method__track_ranks": True, "method__interval": 3, "recipe__epochs": 2}
    run_config(little_config(tmp_path / "whole", **settings))
    rows = [row for row in read_ranks(tmp_path / "whole") if row["layer"] == "layer4.0.conv1"]
    assert [(row["epoch"], row["step"]) for row in rows] == [(0, 0), (0.75, 3), (1.5, 6)]
    config = little_config(tmp_path / "run", **settings, trainer__checkpoint_minutes=1e-9)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StepRunner, "step", stopping_after(5))
        run_config(config)
    run_config(config)
    assert read_ranks(tmp_path / "run") == read_ranks(tmp_path / "whole")


def test_a_fork_goes_on_at_the_same_interval(tmp_path):
    settings = {"method__track_ranks": True, "method__interval": 3, "recipe__epochs": 2}
    run_config(little_config(tmp_path / "origin", **settings, trainer__checkpoint_epochs=1))
    checkpoint = str(min((tmp_path / "origin" / "checkpoints").glob("epoch_*.pt")))
    arm = {"method__switch_epoch": 2, "recipe__epochs": 2, "fork_from": checkpoint}
    with pytest.raises(CuttlefishError, match="measured its ranks with method.interval=3 and this one has n"):
        run_config(little_config(tmp_path / "arm", "cuttlefish", **arm))
    assert (
        run_config(little_config(tmp_path / "arm", "cuttlefish", **arm, method__interval=3)).switch_step == 6
    )


def test_an_interval_that_never_ends_is_refused(tmp_path):
    with pytest.raises(CuttlefishError, match="interval=12 lies outside the run's 12 steps"):
        run_config(little_config(tmp_path / "run", "cuttlefish", method__interval=12, recipe__epochs=3))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("steps", "schedule"), [(2, {}), (6, {}), (7, LINEAR), (9, {})])
def test_resume_around_it_is_exact_to_the_bit(tmp_path, monkeypatch, steps, schedule):
    settings = INTERVAL | schedule
    whole = run_config(little_config(tmp_path / "whole", "cuttlefish", **settings))
    config = little_config(tmp_path / "run", "cuttlefish", **settings, trainer__checkpoint_minutes=1e-9)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StepRunner, "step", stopping_after(steps))
        run_config(config)
    newest = max((tmp_path / "run" / "checkpoints").glob("epoch_*.pt"))
    progress = load_checkpoint(newest)["progress"]
    assert progress["trained"] * 4 + (progress["step"] or 0) == steps
    resumed = run_config(config)
    assert differences(tmp_path / "whole", whole, tmp_path / "run", resumed) == []


def test_two_processes_switch_as_one(tmp_path):
    settings = {**EXACT, "method__interval": 3, "recipe__epochs": 2}
    alone = run_config(little_config(tmp_path / "alone", "cuttlefish", **settings))
    together = run_config(little_config(tmp_path / "together", "cuttlefish", trainer__devices=2, **settings))
    assert alone.switch_step == together.switch_step == 6
    assert_alike(tmp_path / "alone", alone, tmp_path / "together", together)
