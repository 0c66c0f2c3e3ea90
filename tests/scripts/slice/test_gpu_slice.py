"""The whole slice on a CPU at toy size: killed between and within steps, gone on elsewhere, and imported."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cuttlefish.evidence.benches import load_benches
from cuttlefish.record.record import read_record
from scripts.gpu_slice import main
from scripts.slice.runner import read_result
from tests.helpers.waiting import wait_for

ROOT = Path(__file__).resolve().parents[3]
RUNS = ["cuttlefish-bf16", "cuttlefish-fp32", "full-rank-bf16", "full-rank-fp32"]


def started(out, back, *more):
    command = [sys.executable, "-m", "scripts.gpu_slice", "run", "--device", "cpu", "--minutes", "9"]
    return subprocess.Popen([*command, "--out", str(out), "--back", str(back), *more], cwd=ROOT)


@pytest.mark.slow
def test_killed_gone_on_elsewhere_and_imported(tmp_path):
    out, back, new = tmp_path / "out", tmp_path / "back", tmp_path / "new"
    slice_ = started(out, back)
    wait_for(lambda: read_result(out, "steps").get("status") == "begun" and list(out.glob("arms/*.json")))
    os.killpg(read_result(out, "steps")["process"], signal.SIGKILL)  # within a step
    wait_for(lambda: read_result(out, "data").get("status") == "done")
    slice_.kill()  # between two steps, or soon after
    slice_.wait()
    name = "train-cuttlefish-bf16"
    if "process" in read_result(out, name):
        wait_for(lambda: not Path(f"/proc/{read_result(out, name)['process']}").exists())
    assert read_result(out, "steps")["status"] == "failed"
    assert json.loads((back / "contents.json").read_text())["files"][0] == "results.tar.gz"
    assert started(new, tmp_path / "back2", "--go-on", str(back)).wait() == 0
    found = {read_result(new, path.stem)["status"] for path in (new / "steps").iterdir()}
    assert found == {"done", "skipped"}
    main(["import", str(tmp_path / "back2"), "--results", str(tmp_path / "results")])
    records = [read_record(path.parent) for path in (tmp_path / "results" / "records").rglob("record.json")]
    assert len(records) == len(RUNS) and {record.status for record in records} == {"finished"}
    assert {bench.what for bench in load_benches(tmp_path / "results" / "bench")} == {
        "ceilings", "data", "models", "profile", "steps",
    }  # fmt: skip
