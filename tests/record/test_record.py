import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cuttlefish.errors import CuttlefishError
from cuttlefish.record.fields import FIELDS
from cuttlefish.record.problems import problems_of
from cuttlefish.record.record import (
    SCHEMA,
    error_text,
    new_record,
    plain,
    read_record,
    validate_record,
    write_record,
)
from tests.helpers.finished import FINISHED, STARTED, SWITCHED

DESIGNED = """schema status error model data method recipe seed epochs accuracy_final accuracy_best metrics loss_final params_full
    params_total params_trainable params_nonzero params_stored_bits macs_full macs_final switch_epoch k ranks compute_seconds wall_seconds
    seconds peak_memory_bytes device precision git_commit git_dirty packages data_digest command started run_key"""


def nested(levels):
    value = {}
    for _ in range(levels):
        value = {"a": [value]}
    return value


def finished(**changes):
    return new_record("finished", **(FINISHED | SWITCHED | changes))


def test_a_record_holds_every_designed_field_and_comes_back_as_it_was(tmp_path):
    record = finished()
    assert set(DESIGNED.split()) <= vars(record).keys() == FIELDS.keys()
    assert validate_record(record) == []
    path = write_record(tmp_path, record)
    assert path == tmp_path / "record.json"
    assert read_record(tmp_path) == read_record(path) == record
    assert record.schema == SCHEMA == 1


@pytest.mark.parametrize(
    "field",
    [name for name, one in FIELDS.items() if one.metadata["needed"] != "where known" and name != "schema"],
)
def test_each_needed_field_is_missed(field):
    assert any(field in problem for problem in validate_record(replace(finished(), **{field: None})))
    without = {name: value for name, value in vars(finished()).items() if name != field}
    assert any(field in problem for problem in problems_of(without))


@pytest.mark.parametrize("changes, words", [
    ({"seed": "0"}, "seed is '0', not of type int"), ({"seed": True}, "not of type int"),
    ({"epochs": 3.5}, "epochs is 3.5"),
    ({"git_dirty": 1}, "not of type bool"), ({"ranks": [3]}, "not of type dict"),
    ({"accuracy_final": "78"}, "int or float"),
    ({"acuracy_final": 3}, "did you mean 'accuracy_final'"),
    ({"status": "done"}, "not one of finished, failed, interrupted"),
    ({"scale": "huge"}, "not one of smoke"), ({"schema": 2}, "schema is 2"),
    ({"accuracy_final": 101.0, "accuracy_best": 101.0}, "accuracy_final is above 100"),
    ({"accuracy_final": None}, "accuracy_final or metrics"),
    ({"accuracy_best": 50.0}, "below accuracy_final"),
    ({"params_trainable": 401}, "more parameters"), ({"switch_epoch": 31}, "after the last epoch"),
    ({"ranks": {"a": 0}}, "at least 1"),
    ({"ranks": {"a": 2.0}}, "at least 1"), ({"compute_seconds": 130.0}, "exceed wall_seconds"),
    ({"params_total": -1}, "negative"),
    ({"loss_final": float("inf")}, "finite"), ({"error": "Traceback"}, "cannot have an error"),
    ({"status": "failed"}, "needs its error"),
    ({"epochs": 0}, "epochs of a finished run is 0"),
    ({"epochs_trained": 0, "switch_epoch": None}, "epochs_trained of a finished run is 0"),
    ({"macs_full": 0}, "macs_full of a finished run is 0"),
    ({"params_nonzero": 0}, "params_nonzero of a finished run is 0"),
    ({"macs_full": 2**63}, "macs_full is beyond 64 bits"), ({"ranks": {"a": 2**63}}, "at least 1"),
    ({"seconds": {"ranks": None}}, "seconds are not"),
    ({"config": {"method": "x"}}, "config.method is not a mapping"),
    ({"config": {"recipe": [1]}}, "config.recipe is not a mapping"),
    ({"config": {"recipe": {"schedule": {"milestones": [None]}}}}, "milestones are not fractions"),
    ({"phases": [1]}, "phases are not a mapping each"),
    ({"extra": nested(200)}, "nested more than 100 levels deep"),
    ({"metrics": {"f1": "x"}}, "metrics are not a number each"), ({"command": "\ud800"}, "lone surrogates"),
])  # fmt: skip
def test_each_problem_is_named(changes, words):
    problems = problems_of(vars(finished()) | changes)
    assert any(words in problem for problem in problems), problems


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_may_be_a_list_of_lists(field):
    assert problems_of(vars(finished()) | {field: [["?"]]})


def test_a_run_that_ended_before_its_first_epoch_is_sound():
    assert validate_record(new_record("interrupted", **STARTED, epochs_trained=0)) == []


def test_glue_has_metrics_in_place_of_accuracy():
    assert validate_record(finished(accuracy_final=None, accuracy_best=None, metrics={"mcc": 0.5})) == []


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_run_that_ended_early_is_recorded_with_what_is_known(tmp_path, status):
    error = "Traceback\nValueError: loss is NaN"
    record = new_record(status, **STARTED, error=error, epochs_trained=3, loss_final=float("nan"))
    assert validate_record(record) == []
    write_record(tmp_path, record)
    assert read_record(tmp_path).loss_final is None and read_record(tmp_path).epochs_trained == 3


def test_a_methods_own_results_go_into_extra():
    record = finished(layers_at_floor=2, extra={"sparsity": np.float32(0.5)})
    assert record.extra == {"sparsity": 0.5, "layers_at_floor": 2}
    assert validate_record(record) == []


def test_no_secret_and_no_folder_gets_into_a_record(tmp_path):
    error = "Traceback\nRuntimeError: api_key=hunter2 refused"
    config = {"logger": {"wandb": {"api_key": "hunter2"}}, "data": {"root": "/home/ann/data"}}
    record = new_record(
        "failed", **STARTED | {"command": "python run.py token=hunter2"}, error=error, config=config
    )
    write_record(tmp_path, record)
    text = (tmp_path / "record.json").read_text()
    assert "hunter2" not in text and "/home/ann" not in text and "refused" in text


def test_a_bad_record_is_written_all_the_same_and_complained_about(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        write_record(tmp_path, finished(switch_epoch=31))
    assert "the switch came after the last epoch" in caplog.text
    assert read_record(tmp_path).switch_epoch == 31


def test_what_is_no_file_at_all_is_said_in_one_sentence(tmp_path):
    (tmp_path / "a" / "record.json").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    os.mkfifo(tmp_path / "b" / "record.json")
    for folder, words in (("a", "Is a directory"), ("b", "it is no regular file")):
        with pytest.raises(CuttlefishError, match=rf"record.json cannot be read: {words}\.$"):
            read_record(tmp_path / folder)


@pytest.mark.parametrize(
    "content, words",
    [("[" * 100_000, "recursion"), (None, "no record"), ("{", "not valid JSON"), ("[1]", "holds a list")],
)
def test_what_is_no_record_is_said_in_one_sentence(tmp_path, content, words):
    if content is not None:
        (tmp_path / "record.json").write_text(content)
    with pytest.raises(CuttlefishError, match=words) as raised:
        read_record(tmp_path)
    assert "record.json" in str(raised.value) and "\n" not in str(raised.value)


def test_values_become_jsons_own_types():
    value = {1: np.int64(3), "t": torch.tensor([1.5, float("inf")]), "p": Path("a/b")}
    value |= {"r": range(2), "s": {2, 1}, "b": True}
    assert plain(value) == {"1": 3, "t": [1.5, None], "p": "a/b", "r": [0, 1], "s": [1, 2], "b": True}
    assert plain(float("nan")) is None
    json.dumps(plain(value), allow_nan=False)


def test_what_exceptions_said_names_no_folder_and_no_secret(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    told = "cannot write /home/ann/private/x.pt with key 0123456789abcdef"
    try:
        raise OSError(told)
    except OSError as error:
        assert "OSError: cannot write .../x.pt with key REDACTED" in error_text(error)
    record = new_record("failed", error=told, loggers_dropped=[told], sinks_dropped=[told], rounds=3)
    assert record.error == "cannot write .../x.pt with key REDACTED"
    dropped = [record.error]
    assert record.extra == {"loggers_dropped": dropped, "sinks_dropped": dropped, "rounds": 3}


def test_error_text_is_the_traceback_without_the_machines_folders():
    def fail():
        raise ValueError("password=hunter2 rejected")

    try:
        fail()
    except ValueError as error:
        text = error_text(error)
    assert "Traceback" in text and "in fail" in text and "rejected" in text
    assert "hunter2" not in text
    assert str(Path(__file__).resolve().parents[2]) not in text
