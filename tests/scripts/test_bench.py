"""The benches work; what they measure is for `make bench` on a quiet machine, never for a test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scripts.bench import main, write
from scripts.benches.methods import method_arms
from scripts.benches.turns import take_turns
from tests.helpers.runs import METHODS

ROOT = Path(__file__).resolve().parents[2]


def test_every_method_has_an_arm():
    for model in ("resnet18", "vgg19"):
        arms = method_arms("cpu", model, 16)
        assert {arm["method"]["name"] for arm in arms} == set(METHODS) and len(arms) == len(METHODS)


def test_arms_take_turns_and_none_outlives_a_failure(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    shared = {"device": "cpu", "batch": 8, "model": "resnet18", "width": 8}
    shared |= {"steps": 1, "rounds": 2, "after": 1}
    switched = {"name": "pufferfish", "k": 1, "switch_epoch": 1, "keep_dense": False}
    arms = [shared | {"arm": "a", "method": {"name": "full_rank"}}, shared | {"arm": "b", "method": switched}]
    facts, seconds, product = take_turns("scripts.benches.method_arm", arms, rounds=2, device="cpu")
    assert facts[1]["params_nonzero"] < facts[0]["params_nonzero"] and facts[1]["once_s"] > 0
    assert [len(times) for times in seconds] == [2, 2] and min(map(min, seconds)) > 0 and product > 0
    with pytest.raises(RuntimeError, match="ended with exit code 1"):
        odd = shared | {"arm": "c", "method": {"name": "none"}}
        take_turns("scripts.benches.method_arm", [*arms[:1], odd], rounds=1, device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["ranks", "checkpoints", "processes", "overhead", "imagenet"])
def test_a_bench_writes_its_table(tmp_path, what):
    words = ["-m", "scripts.bench", what, *"--small --rounds 1 --out".split(), str(tmp_path)]
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
    (found,) = tmp_path.glob("*.json")
    content = json.loads(found.read_text())
    assert content["rows"] and content["seconds"] > 0 and found.with_suffix(".md").exists()


@pytest.mark.parametrize(
    "dirty, told", [(True, "commit abc with uncommitted changes\n"), (False, "commit abc\n")]
)
def test_a_table_says_whether_its_code_was_committed(tmp_path, dirty, told):
    facts = {"hardware": "a CPU", "time": "now", "commit": "abc", "dirty": dirty}
    path = write("ranks", [{"ours_s": 1.0}], facts, tmp_path)
    assert path.with_suffix(".md").read_text().startswith(f"a CPU · now · {told}")


def test_a_gpu_that_is_not_there_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["ranks", "--device", "cuda", "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "torch sees no GPU" in told and told.count("\n") == 1 and list(tmp_path.iterdir()) == []
