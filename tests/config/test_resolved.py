"""resolved.yaml as a person may edit it, and the configs in all committed records: same values, same run keys."""

import os
from pathlib import Path

import pytest

from cuttlefish.config.identity import run_key
from cuttlefish.config.resolved import RESOLVED, dump, in_present_words, load
from cuttlefish.config.validate import load_config, to_dict
from cuttlefish.errors import CuttlefishError
from cuttlefish.methods import build_method
from cuttlefish.record.record import read_record

RECORDS = sorted((Path(__file__).resolve().parents[2] / "results" / "records").rglob("record.json"))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1e-2", 0.01),
        ("1E5", 1e5),
        ("-2e+3", -2e3),
        (".5e1", 5.0),
        ("1.0e-2", 0.01),
        ("'1e-2'", "1e-2"),
        ("1e", "1e"),
    ],
)
def test_numbers_with_an_exponent_are_numbers(tmp_path, written, meant):
    (tmp_path / RESOLVED).write_text(f"value: {written}\n")
    assert load(tmp_path / RESOLVED) == {"value": meant}
    (tmp_path / RESOLVED).write_text(dump({"value": meant}))
    assert load(tmp_path / RESOLVED) == {"value": meant}


def test_an_edited_learning_rate_is_read_as_meant(tmp_path):
    text = dump(to_dict(load_config({}))).replace("peak_lr: 0.1", "peak_lr: 2e-1")
    (tmp_path / RESOLVED).write_text(text)
    assert load_config(load(tmp_path / RESOLVED)).recipe.schedule.peak_lr == 0.2


@pytest.mark.parametrize("text", ["[1]", "a: [", "\x00", "a: &x [*x]", "[" * 2000, ""])
def test_what_is_no_config_ends_in_one_sentence(tmp_path, text):
    (tmp_path / RESOLVED).write_text(text)
    with pytest.raises(CuttlefishError, match=f"{RESOLVED}|nested too deep") as caught:
        load_config(load(tmp_path / RESOLVED))
    assert "\n" not in str(caught.value)


def test_a_named_pipe_is_no_config(tmp_path):
    os.mkfifo(tmp_path / RESOLVED)
    with pytest.raises(CuttlefishError, match="it is no regular file"):
        load(tmp_path / RESOLVED)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: f"{path.parts[-3]}-{path.parts[-2]}")
def test_a_committed_record_s_config_is_valid_and_has_its_key(path):
    record = read_record(path)
    config = load_config(in_present_words(record.config))
    method = build_method(config.method)
    knobs = {key: value for key, value in to_dict(method.settings).items() if value is not None}
    mapping = {**to_dict(config), "method": {"name": config.method["name"], **knobs}}
    assert run_key(mapping, record.data_digest, method.version, to_dict(method.Settings())) == record.run_key
