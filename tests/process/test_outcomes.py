import os
import signal
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from cuttlefish.errors import Busy, CuttlefishError, Interrupted
from cuttlefish.process import outcomes as outcomes_module
from cuttlefish.process.outcomes import (
    Notes,
    Outcome,
    begin,
    collect,
    failure,
    made,
    show_table,
    summary,
    worst_code,
)
from cuttlefish.process.requeue import requeue


def hydra_config(folder, launcher, number=0):
    own = {"launcher": {"_target_": launcher}, "sweep": {"dir": str(folder)}, "job": {"num": number}}
    return OmegaConf.create({"hydra": own})


def test_every_kind_of_end_has_its_place_in_the_summary():
    ends = [
        failure("a", CuttlefishError("bad")),
        failure("b", Busy("taken")),
        failure("c", Interrupted("saved")),
        failure("d", ZeroDivisionError()),
    ]
    found = [(end.state, end.code, end.said) for end in ends]
    assert found[:2] == [("failed", 2, "bad"), ("busy", 3, "taken")]
    assert found[2:] == [("interrupted", 75, "saved"), ("failed", 1, "ZeroDivisionError")]
    assert summary([Outcome("e", "finished"), Outcome("f", "skipped"), *ends]) == (
        "6 runs: 1 finished, 1 skipped (finished before), 1 being run by another process, 1 interrupted (the same command goes on), "
        "2 failed (a, d)"
    )


@pytest.mark.parametrize(
    ("codes", "worst"), [([], 0), ([0, 3], 3), ([75, 3], 75), ([75, 2, 3], 2), ([0, 2, 1, 75], 1)]
)
def test_the_worst_end_gives_the_exit_code(codes, worst):
    assert worst_code(Outcome("", "failed", code) for code in codes) == worst


def test_what_a_job_noted_elsewhere_is_counted_here(tmp_path, monkeypatch):
    monkeypatch.setattr(outcomes_module, "in_front", lambda: False)
    notes = Notes()
    notes.on_multirun_start(hydra_config(tmp_path, "x.JoblibLauncher"))
    for number in (10, 2):  # a third one died without a word
        made.append(Outcome(f"seed={number}", "finished", score=90.5))
        ended = SimpleNamespace(status=SimpleNamespace(name="COMPLETED"))
        notes.on_job_end(hydra_config(tmp_path, "", number), ended)
    assert [(outcome.asked, outcome.score) for outcome in collect()] == [("seed=2", 90.5), ("seed=10", 90.5)]
    assert collect() == [] and not list(tmp_path.rglob("*.json"))


def test_jobs_in_the_first_process_need_no_notes(tmp_path):
    """joblib with n_jobs=1 starts none of its own: counted here, they must not be counted there, too."""
    notes = Notes()
    notes.on_multirun_start(hydra_config(tmp_path, "x.JoblibLauncher"))
    begin()
    made.append(Outcome("seed=1", "finished"))
    notes.on_job_end(hydra_config(tmp_path, "", 0), SimpleNamespace(status=SimpleNamespace(name="COMPLETED")))
    assert collect() == []


def test_a_sweep_s_table_has_what_was_swept_and_what_came_of_it(capsys):
    show_table([
        Outcome("data=digits seed=1", "finished", 0, "", 96.44, 182_000, 7, 62.0, "runs/a/1"),
        Outcome("data=digits seed=2", "skipped", 0, "", 95.0, 700_000, None, 62.0, "runs/a/2"),
        Outcome("data=digits seed=3", "failed", 2, "the loss became nan"),
    ])  # fmt: skip
    head, _, first, second, third = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "accuracy", "size", "E", "time", "folder"]
    assert first.split()[0] == "seed=1" and "96.44" in first and " 7 " in first and first.endswith("runs/a/1")
    assert second.split()[0] == "seed=2" and second.endswith("runs/a/2")
    assert third.split() == ["seed=3", "failed"]


def test_jobs_of_this_process_need_no_notes(tmp_path):
    launcher = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
    Notes().on_multirun_start(hydra_config(tmp_path, launcher))
    assert Notes.folder is None and collect() == []


@pytest.mark.parametrize(
    ("variables", "by", "called"),
    [
        ({"SUBMITIT_EXECUTOR": "slurm"}, "SIGUSR2", True),
        ({"SUBMITIT_EXECUTOR": "slurm"}, "SIGTERM", False),
        ({"SUBMITIT_EXECUTOR": "slurm", "SUBMITIT_PREEMPT_SIGNAL": "USR1"}, "SIGUSR1", True),
        ({}, "SIGUSR2", False),
    ],
)
def test_only_the_scheduler_s_warning_requeues_a_job(monkeypatch, variables, by, called):
    for name in ("SUBMITIT_EXECUTOR", "SUBMITIT_PREEMPT_SIGNAL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setitem(os.environ, name, value)
    heard, number = [], getattr(signal, by)
    before = signal.signal(number, lambda signum, frame: heard.append(signum))
    try:
        requeue(Interrupted("saved", by))
    finally:
        signal.signal(number, before)
    assert heard == ([number] if called else [])
