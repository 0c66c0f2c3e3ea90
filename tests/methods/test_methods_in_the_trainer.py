"""What every method must do in the trainer; a new method gets these tests by its row in tests/helpers/runs.py."""

import json

import pytest

from cuttlefish.engine.saving import saver as saver_module
from cuttlefish.methods import planned_epochs
from cuttlefish.record.folder import read_epochs
from cuttlefish.record.record import validate_record
from cuttlefish.worker import run_config
from tests.helpers.comparing import differences, final_state
from tests.helpers.runs import METHODS, little_config


class Stopped(Exception):
    pass


def stop_after(monkeypatch, epochs):
    """Make the trainer fall over right after the checkpoint of so many trained epochs, as a killed process
    would."""
    save = saver_module.save_checkpoint

    def saving(folder, number, state, step=None):
        save(folder, number, state, step)
        if number == epochs:
            raise Stopped

    monkeypatch.setattr(saver_module, "save_checkpoint", saving)


@pytest.fixture(scope="module", params=METHODS)
def finished(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, run_config(little_config(folder, request.param)), folder


def test_record_is_complete(finished):
    method, record, folder = finished
    assert record.status == "finished" and record.method == method
    assert validate_record(record) == []
    assert record.params_total > 0 and record.compute_seconds > 0
    assert sum(phase["epochs"] for phase in record.phases) == record.epochs_trained
    config = little_config(folder, method)
    assert planned_epochs(config.method, config.recipe) == record.epochs_trained


def test_resumes_to_the_same_bits_from_any_epoch(finished, tmp_path, monkeypatch):
    method, record, folder = finished
    for epochs in range(1, record.epochs_trained):
        with monkeypatch.context() as patch:
            stop_after(patch, epochs)
            with pytest.raises(Stopped):
                run_config(little_config(tmp_path / str(epochs), method))
        again = run_config(little_config(tmp_path / str(epochs), method))
        assert differences(tmp_path / str(epochs), again, folder, record) == []


def test_a_finished_run_is_not_run_again(finished, capsys):
    method, record, folder = finished
    assert run_config(little_config(folder, method)) == record
    assert "already finished" in capsys.readouterr().out


def test_state_is_safe_to_load(finished):
    _, _, folder = finished
    assert final_state(folder)["progress"]["trained"] > 0  # read with weights_only


def test_bf16_trains_as_fp32_does(finished, tmp_path):
    """In the first epoch: later ones carry its rounding on to wherever a network this small ends."""
    method, exact, folder = finished
    record = run_config(
        little_config(tmp_path, method, trainer__precision="bf16", trainer__deterministic=False)
    )
    assert record.status == "finished" and record.precision == "bf16"
    assert record.loss_final != exact.loss_final, "bf16 did nothing"
    first, expected = (read_epochs(run)[0]["train_loss"] for run in (tmp_path, folder))
    assert first == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("method", ["pufferfish", "si_fd", "lc", "imp", "grasp", "eb"])
def test_the_size_to_match_is_read_once(tmp_path, monkeypatch, method):
    """Neither a run that is under way nor one that goes on heeds what becomes of the matched record."""
    matched = tmp_path / "matched" / "record.json"
    knobs = {"imp": {"levels": None}, "grasp": {"ratio": None}, "lc": {"alpha": 2e-6}, "si_fd": {"rho": 0.08}}
    config = little_config(
        tmp_path / "run",
        method,
        **{
            f"method__{key}": value for key, value in {"match": str(matched), **knobs.get(method, {})}.items()
        },
    )
    fields = {
        "schema": 1,
        "run_key": "0123456789ab",
        "status": "finished",
        "method": "cuttlefish",
        "params_nonzero": None,
    }
    matched.parent.mkdir()
    matched.write_text(json.dumps(fields | {"params_total": 36_000}))
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(Stopped):
            run_config(config)
    matched.write_text(json.dumps(fields | {"params_total": 40_000}))
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stopped):
            run_config(config)
    matched.unlink()
    record = run_config(config)
    assert record.status == "finished"
    assert (record.target["params"], record.target["source"]) == (36_000, "run 0123456789ab (cuttlefish)")
