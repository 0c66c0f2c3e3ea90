"""The short form of `make torture`: a few deaths a method at points drawn with a fixed seed."""

import random

import pytest

from cuttlefish.engine.saving.checkpoint import save_checkpoint
from tests.torture import ARMS, Death, Killed, Trials, watched

QUICK = ("cuttlefish", "imp")
"""One with a switch and one with several phases; the others take as long again each."""


@pytest.mark.parametrize(
    "method", [method if method in QUICK else pytest.param(method, marks=pytest.mark.slow) for method in ARMS]
)
def test_killed_and_resumed(method, tmp_path):
    trials, draw = Trials(method, tmp_path), random.Random(method)
    writes = trials.write_points()
    outcome = trials.killed_at([draw.choice(writes), draw.randint(1, trials.count)])
    assert outcome.kills >= 1 and outcome.identical, outcome


def test_killed_while_stacks_are_profiled_or_written_down(tmp_path):
    trials = Trials("cuttlefish_profiled", tmp_path)
    trials.write_points()
    points = [
        number
        for number, phase in enumerate(trials._log, 1)
        if phase in ("training: profiling", "writing: profile")
    ]
    assert len(points) > 5
    for outcome in [trials.killed_at([point]) for point in points]:
        assert outcome.kills == 1 and outcome.identical, outcome


def test_the_points_cover_every_kind_of_write(tmp_path):
    trials = Trials("cuttlefish_profiled", tmp_path)
    assert len(trials.write_points()) > 100
    phases = set(trials._log)
    for kind in ("checkpoint", "record", "weights", "epochs", "ranks", "log", "resolved", "profile"):
        assert f"writing: {kind}" in phases
    assert {
        "training: middle of a step",
        "training: profiling",
        "training: ranks",
        "training: switch",
        "training: evaluate",
    } <= phases


def test_a_lost_bit_would_be_noticed(tmp_path, monkeypatch):
    """The comparison sees a resumed run that lost its optimizer's momentum."""
    trials = Trials("full_rank", tmp_path)
    point = next(number for number in trials.write_points() if number > trials.count // 2)

    def forgetful(folder, epochs, state, *step):
        return save_checkpoint(
            folder, epochs, {**state, "optimizer": {**state["optimizer"], "state": {}}}, *step
        )

    with monkeypatch.context() as patch:
        patch.setattr("cuttlefish.engine.saving.saver.save_checkpoint", forgetful)
        assert "model" in trials.killed_at([point]).problems


def test_a_half_written_file_that_stayed_would_be_noticed(tmp_path, monkeypatch):
    trials = Trials("full_rank", tmp_path)
    opened = next(point for point in trials.write_points() if trials._log[point - 1] == "writing: checkpoint")
    monkeypatch.setattr("cuttlefish.engine.session.remove_left_overs", lambda folder: None)
    assert trials.killed_at([opened + 1]).problems.startswith("left over: .epoch_")


def test_a_simulated_death_leaves_what_a_real_one_would(tmp_path):
    death = Death(3)
    with pytest.raises(Killed), watched(death):
        save_checkpoint(tmp_path, 1, {"a": 1})
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".tmp" and 0 < left.stat().st_size, (
        "no clean-up has run, and the file was cut short or whole"
    )
    with pytest.raises(Killed):
        death.point("anything after it")
