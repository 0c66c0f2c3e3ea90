"""make reevaluate: accuracies from weights alone; what no longer agrees with its record is found."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import save_file

from cuttlefish.engine.saving.weights import load_weights
from cuttlefish.record.fields import Record
from cuttlefish.replay import EXIT_DIFFERS
from cuttlefish.worker import run_config
from scripts.reevaluate import AGREES, DIFFERS, SAME, agreement, main
from tests.helpers.many_records import made_up_record, write_run
from tests.helpers.runs import little_config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for method in ("cuttlefish", "eb"):
        run_config(little_config(folder / method, method))
    return folder


@pytest.fixture
def runs(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "runs")
    return tmp_path / "runs"


def test_weights_and_records_agree_and_what_has_none_is_listed(runs, tmp_path, capsys):
    write_run(tmp_path / "records" / "a", made_up_record(1))
    shutil.copytree(
        runs / "eb", tmp_path / "records" / "b", ignore=shutil.ignore_patterns("*.safetensors", "checkpoints")
    )
    write_run(runs / "old", made_up_record(2))
    assert main([str(runs), "--records", str(tmp_path / "records")]) == 0
    told = capsys.readouterr().out
    assert "2 of 3 finished runs have their weights: 2 the same" in told
    assert told.splitlines()[-1] == f"no weights here for {tmp_path / 'records' / 'a'}"


def test_a_record_that_its_weights_do_not_bear_out(runs, tmp_path, capsys):
    path = runs / "eb" / "record.json"
    record = json.loads(path.read_text())
    record |= {"accuracy_final": record["accuracy_final"] + 1, "accuracy_best": 100.0}
    path.write_text(json.dumps(record))
    assert main([str(runs), "--records", str(tmp_path)]) == EXIT_DIFFERS
    told = capsys.readouterr().out
    assert "1 the same, 1 DIFFERS" in told
    assert [line for line in told.splitlines() if "DIFFERS" in line][0].startswith(record["run_key"])


def test_weights_that_cannot_be_used_are_told(runs, tmp_path, capsys):
    shutil.copy(runs / "eb" / "model.safetensors", runs / "cuttlefish" / "model.safetensors")
    assert main([str(runs), "--records", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert "1 the same, 1 not evaluated" in told.out and "are those of run" in told.err


@pytest.mark.parametrize("odd", ["other content", "no network", "a named pipe", "a folder"])
def test_one_odd_file_among_many_ends_none_of_the_others(runs, tmp_path, capsys, odd):
    path = runs / "cuttlefish" / "model.safetensors"
    key = load_weights(path.parent).run_key
    path.unlink()
    if odd == "a named pipe":
        os.mkfifo(path)
    elif odd == "a folder":
        path.mkdir()
    else:
        method = 7 if odd == "other content" else {"dict": []}
        metadata = {"cuttlefish": json.dumps({"run_key": key, "method": method})}
        save_file({"conv1.weight": torch.ones(1)}, path, metadata)
    assert main([str(runs), "--records", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert "1 the same, 1 not evaluated" in told.out
    assert told.err.count("\n") == 1
    assert "Traceback" not in told.err


@pytest.mark.parametrize(
    "accuracy, loss, expected",
    [(71.0, 0.7, SAME), (71.04, 0.7001, AGREES), (71.1, 0.7, DIFFERS), (71.0, 0.71, DIFFERS)],
)
def test_agreement(accuracy, loss, expected):
    assert agreement(Record(accuracy_final=71.0, loss_final=0.7), accuracy, loss) == expected


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err == f"cuttlefish: there is no folder {tmp_path / 'nowhere'}\n"
