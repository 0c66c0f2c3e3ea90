"""What goes wrong before training: bad input is only told, all else is a failed run with a record."""

import pytest
import torch

from cuttlefish.config.schema import TrainerConfig
from cuttlefish.engine import session
from cuttlefish.engine.device import own_threads, set_up
from cuttlefish.engine.run import record_failure, resolve_run
from cuttlefish.errors import CuttlefishError
from cuttlefish.process.lock import RunLock
from cuttlefish.record.folder import LOCK
from cuttlefish.record.record import read_record, validate_record
from cuttlefish.worker import run_config
from tests.helpers.runs import little_config


def refusing(monkeypatch, where, error):
    def refuse(*arguments, **keywords):
        raise error

    monkeypatch.setattr(session, where, refuse)


def test_a_crash_leaves_its_traceback_in_a_record(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        refusing(patch, "count_macs", RuntimeError("no such operation"))
        with pytest.raises(RuntimeError, match="no such operation"):
            run_config(little_config(tmp_path))
    record = read_record(tmp_path)
    assert validate_record(record) == [] and record.status == "failed"
    assert "no such operation" in record.error and record.method == "full_rank" and record.world_size == 1
    assert run_config(little_config(tmp_path)).status == "finished", "and it keeps nothing from going on"


def test_out_of_memory_says_what_to_lower(tmp_path, monkeypatch):
    refusing(monkeypatch, "data_set", torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    with pytest.raises(CuttlefishError, match="out of memory .*lower recipe.batch_size=16"):
        run_config(little_config(tmp_path))
    assert read_record(tmp_path).status == "failed"


def test_bad_input_leaves_nothing(tmp_path, monkeypatch):
    refusing(monkeypatch, "data_set", CuttlefishError("no such data"))
    with pytest.raises(CuttlefishError, match="no such data"):
        run_config(little_config(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_an_earlier_piece_s_record_stays(tmp_path, monkeypatch):
    run_config(little_config(tmp_path))
    run = resolve_run(little_config(tmp_path))
    record_failure(run, RuntimeError("late"), 1)
    assert read_record(tmp_path).status == "finished"


def test_a_run_that_another_process_is_at_is_left_alone(tmp_path, monkeypatch, caplog):
    """This one finds no room beside it, say, before it asks whose the run is."""
    refusing(monkeypatch, "data_set", torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    with RunLock(tmp_path, float):
        before = sorted(tmp_path.iterdir())
        with pytest.raises(CuttlefishError, match="out of memory"):
            run_config(little_config(tmp_path))
        assert sorted(tmp_path.iterdir()) == before
    assert "is being run by process" in caplog.text


def test_killed_processes_leave_a_failed_record(tmp_path, monkeypatch):
    from cuttlefish.engine.processes import launch

    def killed(resolved, config):
        with RunLock(resolved.parent, lambda: 100.5):
            left = (resolved.parent / LOCK).read_text()
        (resolved.parent / LOCK).write_text(left)
        raise CuttlefishError("process 0 of 2 was killed by SIGKILL")

    monkeypatch.setattr(launch, "launch", killed)
    with pytest.raises(CuttlefishError, match="SIGKILL"):
        run_config(little_config(tmp_path, trainer__devices=2))
    record = read_record(tmp_path)
    assert record.status == "failed" and record.world_size == 2 and "SIGKILL" in record.error
    assert record.wall_seconds == 100.5, "what they took is known from their last sign of life"


def test_a_run_that_names_no_threads_has_the_process_s_own():
    own = own_threads()
    for threads, expected in ((own, own), (own + 1, own + 1), (None, own)):
        set_up(TrainerConfig(threads=threads), torch.device("cpu"), 0)
        assert torch.get_num_threads() == expected


def test_an_ordinary_run_does_not_import_inductor(monkeypatch):
    """torch imports it, seconds of work, to set what is set already."""
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *_: pytest.fail("imports Inductor"))
    set_up(TrainerConfig(), torch.device("cpu"), 0)
