"""What a finished run keeps is enough to get its accuracy again, whatever the method did to the network."""

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from cuttlefish.engine.reevaluate import reevaluate
from cuttlefish.engine.run import resolve_run
from cuttlefish.engine.saving.weights import load_weights, save_weights
from cuttlefish.errors import CuttlefishError
from cuttlefish.record.atomic import write_atomic
from cuttlefish.worker import run_config
from tests.helpers.comparing import same
from tests.helpers.runs import METHODS, little_config

SIZED_BY = ("rho", "ratio", "levels", "alpha")
"""Knobs of tests.helpers.runs that give way to `match`."""
DAMAGES = {
    "cut short": lambda whole: whole[:-3],
    "empty": lambda whole: b"",
    "noise": lambda whole: b"\xff" * 40,
    "of another tool": lambda whole: whole.replace(b"run_key", b"run_kex"),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_s_accuracy_is_found_again(method, tmp_path):
    config = little_config(tmp_path, method)
    record = run_config(config)
    run = resolve_run(config)
    scores = reevaluate(run.config, run.key, tmp_path)
    assert (scores.accuracy, scores.loss) == (record.accuracy_final, record.loss_final)


@pytest.mark.parametrize("method", ["si_fd", "grasp", "eb", "imp", "lc"])
def test_a_matched_run_needs_the_other_run_no_more(method, tmp_path):
    other = tmp_path / "record.json"
    other.write_text(
        json.dumps(
            {
                "schema": 1,
                "run_key": "0" * 12,
                "status": "finished",
                "method": "full_rank",
                "params_total": 9000,
                "params_nonzero": 9000,
            }
        )
    )
    knobs = {name: value for name, value in METHODS[method].items() if name not in SIZED_BY}
    config = replace(little_config(tmp_path / "run"), method={"name": method, **knobs, "match": str(other)})
    record = run_config(config)
    run = resolve_run(config)
    other.unlink()
    shutil.rmtree(run.folder / "checkpoints")
    scores = reevaluate(run.config, run.key, run.folder)
    assert (scores.accuracy, scores.loss) == (record.accuracy_final, record.loss_final)


def test_state_keeps_its_types(tmp_path):
    state = {
        "none": None, "flag": True, 3: [1, 2.5, "x"], "pair": (1, (2,)), "empty": {}, "ranks": {"a.b": 4}, "history": [{"epoch": 0}],
        "mask": torch.tensor([True, False]), "deep": {"x": [torch.arange(6).reshape(2, 3).t()]}, "names": {"u"},
    }  # fmt: skip
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    save_weights(tmp_path, "k", model, state)
    loaded = load_weights(tmp_path)
    assert loaded.run_key == "k" and same(loaded.method, state)
    assert [type(loaded.method[key]) for key in state] == [type(value) for value in state.values()]
    assert same(loaded.model, dict(model.state_dict()))


def test_other_tools_read_the_network_by_its_names(tmp_path):
    from safetensors.torch import load_file

    model = nn.Sequential(nn.Linear(4, 3))
    save_weights(tmp_path, "k", model, {"rewind": {"0.weight": model[0].weight}})
    assert same(
        {
            name: tensor
            for name, tensor in load_file(tmp_path / "model.safetensors").items()
            if ":" not in name
        },
        dict(model.state_dict()),
    )


def test_equal_runs_leave_equal_bytes(tmp_path):
    code = (
        "import sys, torch; from pathlib import Path; from cuttlefish.engine.saving.weights import save_weights; "
        "torch.manual_seed(0); state = {'names': {'a', 'b', 'c', 'd'}, 'mask': torch.ones(2)}; "
        "save_weights(Path(sys.argv[1]), 'k', torch.nn.Conv2d(1, 1, 1), state)"
    )
    found = set()
    for seed in range(3):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
        found.add((tmp_path / "model.safetensors").read_bytes())
    assert len(found) == 1


def test_weights_of_earlier_versions_are_read(tmp_path):
    from safetensors.torch import save_file

    metadata = {"run_key": "k", "method": json.dumps({"dict": [["ranks", {"dict": [["a", 3]]}]]})}
    save_file({"weight": torch.ones(2)}, tmp_path / "model.safetensors", metadata)
    found = load_weights(tmp_path)
    assert (found.run_key, found.method, list(found.model)) == ("k", {"ranks": {"a": 3}}, ["weight"])


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_in_a_sentence(tmp_path, damage):
    path = save_weights(tmp_path, "k", nn.Linear(2, 2), {})
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(CuttlefishError, match=r"model.safetensors is damaged or not this suite's"):
        load_weights(tmp_path)


def test_missing_weights_and_those_of_another_run_are_refused(tmp_path):
    config = little_config(tmp_path, recipe__epochs=1, recipe__schedule__warmup_epochs=0)
    run_config(config)
    with pytest.raises(CuttlefishError, match="are those of run .*, not of 0123"):
        reevaluate(config, "0123", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CuttlefishError, match="there are no weights at"):
        reevaluate(config, "0123", tmp_path)


def test_a_disk_that_refuses_the_weights_costs_the_run_nothing(tmp_path, monkeypatch, caplog):
    def refuse(path, data):
        if "safetensors" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomic(path, data)

    monkeypatch.setattr("cuttlefish.engine.saving.weights.write_atomic", refuse)
    record = run_config(little_config(tmp_path, recipe__epochs=1, recipe__schedule__warmup_epochs=0))
    assert record.status == "finished" and "the final weights are not kept" in caplog.text
