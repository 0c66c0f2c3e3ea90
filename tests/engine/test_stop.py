"""Asked to stop at any moment, a run saves and the same command ends in the same bits."""

import os
import signal
import time

import pytest
import torch

from baselines.eb import method as eb
from baselines.imp.method import Imp
from baselines.lc.method import LC
from cuttlefish import worker as worker_module
from cuttlefish.config.schema import TrainerConfig
from cuttlefish.engine import session as session_module
from cuttlefish.engine import training as training_module
from cuttlefish.engine.epoch import EpochRunner
from cuttlefish.engine.run import finished_record, resolve_run
from cuttlefish.engine.saving.checkpoint import after_whole_epochs
from cuttlefish.engine.saving.saver import Saver
from cuttlefish.engine.step import StepRunner
from cuttlefish.engine.timer import CheckpointTimer
from cuttlefish.errors import EXIT_SAVED, CuttlefishError, Interrupted, exit_code
from cuttlefish.loggers.base import Loggers
from cuttlefish.lowrank import surgery
from cuttlefish.methods.base import Method
from cuttlefish.methods.cuttlefish.method import CuttlefishMethod
from cuttlefish.methods.full_rank.method import FullRank
from cuttlefish.process.signals import StopSignals
from cuttlefish.record.folder import read_epochs
from cuttlefish.record.record import read_record
from cuttlefish.worker import main, run_config, run_or_skip
from tests.helpers.comparing import differences
from tests.helpers.runs import EPOCHS, METHODS, little_config

STEPS = 4  # 56 images in batches of 16


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Each method's uninterrupted run: (folder, record), run once."""
    known = {}

    def run(method):
        if method not in known:
            folder = tmp_path_factory.mktemp(method)
            known[method] = folder, run_config(little_config(folder, method))
        return known[method]

    return run


def signal_at(patch, owner, name, call, number=signal.SIGTERM, pause=0.0):
    """Send this process a signal in the middle of call number `call` of a method (or a module's function),
    after so many seconds."""
    original, calls = getattr(owner, name), []

    def wrapped(self, *arguments, **keywords):
        calls.append(None)
        if len(calls) == call:
            time.sleep(pause)
            os.kill(os.getpid(), number)
        return original(self, *arguments, **keywords)

    patch.setattr(owner, name, wrapped)


def interrupted(folder):
    return read_record(folder)


@pytest.mark.parametrize("change", ["emptied", "nothing"])
@pytest.mark.parametrize("method", ["full_rank", "cuttlefish"])
def test_ranks_lost_from_the_log_are_told_on_resume(method, change, tmp_path, monkeypatch):
    words = {"method__track_ranks": True} if method == "full_rank" else {}
    config = little_config(tmp_path / "run", method, **words)
    with monkeypatch.context() as patch:
        signal_at(patch, StepRunner, "step", STEPS + 2)
        with pytest.raises(Interrupted):
            run_config(config)
    if change == "emptied":
        (tmp_path / "run" / "ranks.csv").write_text("")
    run_config(config)
    told = (
        "ranks.csv has lost rows: it has ranks of 0 times, the checkpoint of"
        in (tmp_path / "run" / "log.txt").read_text()
    )
    assert told == (change == "emptied")


@pytest.mark.parametrize("method", METHODS)
def test_stops_within_an_epoch_and_resumes_to_the_same_bits(method, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        signal_at(patch, StepRunner, "step", 2 * STEPS + 2)
        with pytest.raises(Interrupted, match=f"SIGTERM in epoch 3 after step 2 of {STEPS}, state saved"):
            run_config(little_config(tmp_path, method))
    assert interrupted(tmp_path).status == "interrupted" and interrupted(tmp_path).epochs_trained == 2
    assert (tmp_path / "checkpoints" / "epoch_00002_step_000002.pt").exists() and len(
        read_epochs(tmp_path)
    ) == 2
    assert differences(tmp_path, run_config(little_config(tmp_path, method)), *whole(method)) == []


@pytest.mark.parametrize(
    ("owner", "name", "call", "message"),
    [
        (StepRunner, "step", 1, "epoch 1 after step 1"),
        (StepRunner, "step", 2 * STEPS, f"epoch 2 after step {STEPS}"),
        (EpochRunner, "_evaluate", 2, f"epoch 2 after step {STEPS}"),
        (FullRank, "on_epoch_start", 1, "before a step was trained"),
        (FullRank, "on_epoch_start", 3, "before another step was trained, state saved"),
    ],
)
def test_any_moment_will_do(owner, name, call, message, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        signal_at(patch, owner, name, call)
        with pytest.raises(Interrupted, match=message):
            run_config(little_config(tmp_path))
    assert differences(tmp_path, run_config(little_config(tmp_path)), *whole("full_rank")) == []


CHANGES = {
    "cuttlefish": (surgery, "split_layer", 3),
    "pufferfish": (surgery, "split_layer", 3),
    "lc": (LC, "_take_up", 2),
    "imp": (Imp, "_say_emptied", 1),
    "eb": (eb, "_norm_scales", 2),
}
"""Method -> something in the middle of its change of the model."""


@pytest.mark.parametrize("method", CHANGES)
def test_a_change_of_the_model_is_not_waited_for_and_made_again(method, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        signal_at(patch, *CHANGES[method], pause=1.0)
        with pytest.raises(
            Interrupted,
            match="SIGTERM before another step was trained, state saved; the same command goes on",
        ):
            run_config(little_config(tmp_path, method))
    left = interrupted(tmp_path)
    assert left.status == "interrupted" and 0 < left.epochs_trained == len(read_epochs(tmp_path))
    assert (
        sorted(path.name for path in (tmp_path / "checkpoints").glob("epoch*"))[-1]
        == f"epoch_{left.epochs_trained:05d}.pt"
    )
    record = run_config(little_config(tmp_path, method))
    assert differences(tmp_path, record, *whole(method)) == []
    assert record.wall_seconds > left.wall_seconds > 1.0
    assert all(
        record.seconds[part] < 1.0
        for part in ("switch", "enter", "method", "masks")
        if part in record.seconds
    ), "paid for once"


def test_a_stop_requested_before_keeps_the_change_from_beginning(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        signal_at(patch, EpochRunner, "_report", 2)
        patch.setattr(surgery, "split_layer", lambda *_, **__: pytest.fail("it began"))
        with pytest.raises(Interrupted, match="before another step was trained, state saved"):
            run_config(little_config(tmp_path, "cuttlefish"))
    assert (
        differences(tmp_path, run_config(little_config(tmp_path, "cuttlefish")), *whole("cuttlefish")) == []
    )


def test_a_change_is_waited_for_where_epochs_would_be_lost(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        signal_at(patch, surgery, "split_layer", 3)
        with pytest.raises(Interrupted, match=f"in epoch 3 after step 0 of {STEPS}, state saved"):
            run_config(little_config(tmp_path, "cuttlefish", trainer__checkpoint_epochs=3))
    assert [path.name for path in (tmp_path / "checkpoints").glob("epoch*")] == ["epoch_00002_step_000000.pt"]
    assert (
        differences(tmp_path, run_config(little_config(tmp_path, "cuttlefish")), *whole("cuttlefish")) == []
    )


@pytest.mark.parametrize(
    ("owner", "name", "call"), [(StepRunner, "warm_up", 2), (training_module, "evaluate", 4)]
)
def test_compiling_is_not_waited_for(owner, name, call, tmp_path, monkeypatch):
    """Neither of a changed model's step nor of its evaluation, which is compiled beforehand too: a stop could
    not be granted within one."""
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: None)
    signal_at(monkeypatch, owner, name, call)
    with pytest.raises(Interrupted, match="before another step was trained, state saved"):
        run_config(little_config(tmp_path, "cuttlefish", trainer__compile=True, trainer__deterministic=False))
    assert interrupted(tmp_path).epochs_trained == 2


def test_stopped_again_and_again(whole, tmp_path, monkeypatch):
    pieces = 0
    while pieces < 20:
        with monkeypatch.context() as patch:
            signal_at(
                patch, StepRunner, "step", 3, (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)[pieces % 3]
            )
            try:
                record = run_config(little_config(tmp_path, "cuttlefish"))
                break
            except Interrupted:
                pieces += 1
    assert pieces == 5, "three steps a piece, sixteen in all"
    assert differences(tmp_path, record, *whole("cuttlefish")) == []
    assert record.wall_seconds >= record.compute_seconds > 0


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("place", ["resolve_run", "data_set", "start"])
def test_before_the_first_step_a_stop_is_at_once(place, begun, whole, tmp_path, monkeypatch):
    """Nothing has been trained that could be saved: what builds or measures is not waited for."""
    if begun:
        with monkeypatch.context() as patch:
            signal_at(patch, StepRunner, "step", STEPS + 2)
            with pytest.raises(Interrupted):
                run_config(little_config(tmp_path, "cuttlefish"))

    def slow(*arguments, **keywords):
        os.kill(os.getpid(), signal.SIGUSR1)
        raise AssertionError("it went on")

    with monkeypatch.context() as patch:
        owners = {
            "resolve_run": (worker_module, "resolve_run"),
            "data_set": (session_module, "data_set"),
            "start": (Loggers, "start"),
        }
        patch.setattr(*owners[place], slow)
        with pytest.raises(
            Interrupted, match="SIGUSR1 before a step was trained; the same command goes on"
        ) as caught:
            run_config(little_config(tmp_path, "cuttlefish"))
    assert exit_code(caught.value) == EXIT_SAVED and caught.value.signal == "SIGUSR1"
    assert (
        differences(tmp_path, run_config(little_config(tmp_path, "cuttlefish")), *whole("cuttlefish")) == []
    )


def test_a_profile_is_not_waited_for(tmp_path, monkeypatch):
    signal_at(monkeypatch, CuttlefishMethod, "on_fit_start", 1)
    with pytest.raises(Interrupted, match="before a step was trained"):
        run_config(little_config(tmp_path, "cuttlefish"))
    assert interrupted(tmp_path).status == "interrupted" and interrupted(tmp_path).epochs_trained == 0
    assert not (tmp_path / "profile.json").exists()


def test_a_stop_after_the_last_epoch_is_left_to_the_sweep(tmp_path, monkeypatch):
    signal_at(monkeypatch, Method, "on_fit_end", 1)
    stop = StopSignals()
    outcome, record = run_or_skip(little_config(tmp_path), stop)
    assert (outcome, record.status, stop.requested) == ("finished", "finished", "SIGTERM")


def test_a_second_ctrl_c_stops_at_once_without_damage(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        signal_at(patch, StepRunner, "step", 7, signal.SIGINT)
        signal_at(patch, Method, "on_gradients", 7, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt) as caught:
            run_config(little_config(tmp_path))
    assert not isinstance(caught.value, Interrupted) and interrupted(tmp_path).status == "interrupted"
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["epoch_00001.pt"]
    assert differences(tmp_path, run_config(little_config(tmp_path)), *whole("full_rank")) == []


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested == "SIGUSR1", "the first one counts, and later ones do no harm"
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


def test_a_stop_needs_no_one_to_read_of_it():
    """As where a terminal's Ctrl-C ends `| tee` as well."""
    before, (reader, writer) = os.dup(2), os.pipe()
    os.close(reader)
    os.dup2(writer, 2)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.requested == "SIGINT"
    finally:
        os.dup2(before, 2)
        os.close(before), os.close(writer)


def test_the_worker_s_exit_code_says_that_the_command_goes_on(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        signal_at(patch, StepRunner, "step", 2)
        with pytest.raises(Interrupted):
            run_config(little_config(tmp_path))
    signal_at(monkeypatch, StepRunner, "step", 2)
    assert main([str(tmp_path / "resolved.yaml")]) == EXIT_SAVED
    assert "the same command goes on" in capsys.readouterr().err
    assert main([str(tmp_path / "resolved.yaml")]) == 0


def test_a_diverged_epoch_is_not_saved_on_the_way_out(tmp_path, monkeypatch):
    signal_at(monkeypatch, StepRunner, "step", 6)
    with pytest.raises(CuttlefishError, match=r"the loss became (nan|inf) in epoch 2"):
        run_config(little_config(tmp_path, recipe__schedule__peak_lr=1e30, recipe__schedule__base_lr=0.01))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["epoch_00001.pt"]


def test_timed_checkpoints_within_an_epoch(whole, tmp_path, monkeypatch):
    class Fallen(Exception):
        pass

    def fall(self, *arguments):
        if self.training.progress.trained == 2 and self.training.progress.step == 3:
            raise Fallen
        return grant(self, *arguments)

    grant, always = Saver.handle_requests, 1e-9
    with monkeypatch.context() as patch:
        patch.setattr(Saver, "handle_requests", fall)
        with pytest.raises(Fallen):
            run_config(little_config(tmp_path, "cuttlefish", trainer__checkpoint_minutes=always))
    assert [path.name for path in sorted((tmp_path / "checkpoints").glob("epoch*"))] == [
        "epoch_00002_step_000001.pt",
        "epoch_00002_step_000002.pt",
    ]
    record = run_config(little_config(tmp_path, "cuttlefish", trainer__checkpoint_minutes=0.0))
    assert differences(tmp_path, record, *whole("cuttlefish")) == []
    assert [path.name for path in after_whole_epochs(tmp_path / "checkpoints")] == [
        f"epoch_0000{EPOCHS - 1}.pt",
        f"epoch_0000{EPOCHS}.pt",
    ]


def test_pace():
    now = 0.0

    def at(seconds):
        nonlocal now
        now = seconds

    pace = CheckpointTimer(TrainerConfig(checkpoint_minutes=1.0, checkpoint_epochs=2), clock=lambda: now)
    pace.begin_epoch()
    at(59), pace.begin_epoch()
    assert not pace.due_after_epoch(2) and not pace.due_within_epoch()
    at(61)
    assert pace.due_after_epoch(2) and not pace.due_after_epoch(3), "every second epoch"
    assert not pace.due_within_epoch(), "this epoch is two seconds old: its end will do"
    at(119)
    assert pace.due_within_epoch()
    pace.saved(whole=False)
    assert not pace.due_within_epoch() and pace.due_after_epoch(4), (
        "an epoch's own checkpoint is still wanted: arms fork from it"
    )
    pace.saved(whole=True)
    assert not pace.due_after_epoch(4)
    assert not CheckpointTimer(TrainerConfig(), clock=lambda: now).due_within_epoch() and CheckpointTimer(
        TrainerConfig(), clock=lambda: now
    ).due_after_epoch(1)


def test_an_unfinished_record_keeps_nothing_from_going_on(tmp_path, monkeypatch):
    config = little_config(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(StepRunner, "step", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_config(config)
    assert interrupted(tmp_path).status == "failed" and finished_record(resolve_run(config)) is None
    assert run_config(config).status == "finished"
