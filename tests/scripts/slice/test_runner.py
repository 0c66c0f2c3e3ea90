"""Steps of a slice: their limits, what they leave, and where the next slice goes on."""

import json
import sys

from scripts.slice import runner
from scripts.slice.runner import Step, read_result, run_steps


def step(name, code, limit=20.0, **more):
    return Step(name, [sys.executable, "-c", code], limit, least=0.1, **more)


def run(steps, out, seconds=60.0):
    return [one["status"] for one in run_steps(steps, out, seconds, cwd=out, environment={})]


def test_one_that_fails_or_takes_too_long_keeps_none_from_running(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "GRACE", 1.0)
    steps = [
        step("fails", "print('the reason'); raise SystemExit(3)"),
        step("hangs", "import time; print('begun', flush=True); time.sleep(60)", limit=0.5),
        step("stopped", "raise SystemExit(75)"),
        step("not here", "", why_not="no such thing yet"),
        step("fine", "open('made', 'w')"),
    ]
    assert run(steps, tmp_path) == ["failed", "timed out", "unfinished", "skipped", "done"]
    assert read_result(tmp_path, "fails")["words"] == "exit code 3\nthe reason"
    assert "begun" in read_result(tmp_path, "hangs")["words"]
    assert read_result(tmp_path, "not here")["words"] == "no such thing yet"
    (tmp_path / "made").unlink()
    again = [step("fails", ""), *steps[2:]]
    assert run(again, tmp_path) == ["done", "unfinished", "skipped", "done"]
    assert not (tmp_path / "made").exists(), "what is done is not done again"


def test_what_failed_before_comes_after_what_was_never_tried(tmp_path):
    failing = step("fails", "raise SystemExit(3)")
    assert run([failing], tmp_path) == ["failed"]
    order = "open('order', 'a').write('{} ')"
    assert run([step("fails", order.format("fails")), step("new", order.format("new"))], tmp_path)
    assert (tmp_path / "order").read_text() == "new fails "


def test_what_the_time_does_not_reach_is_left_for_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "GRACE", 0.5)
    steps = [step("first", "import time; time.sleep(20)"), step("second", "")]
    assert run(steps, tmp_path, seconds=1.2) == ["timed out", "not reached"]
    assert run([step("first", ""), steps[1]], tmp_path) == ["done", "done"]


def test_a_result_that_was_cut_off_counts_as_none(tmp_path):
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "one.json").write_text('{"status": "do')
    assert run([step("one", "")], tmp_path) == ["done"]


def test_the_step_that_runs_is_said_to_have_begun(tmp_path):
    path = tmp_path / "steps" / "one.json"
    wait = f"import os, shutil, time\nwhile not os.path.exists({str(path)!r}): time.sleep(0.01)\n"
    run([step("one", wait + f"shutil.copy({str(path)!r}, 'seen')")], tmp_path)
    assert json.loads((tmp_path / "seen").read_text())["status"] == "begun"
