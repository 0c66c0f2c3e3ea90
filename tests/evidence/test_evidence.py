from dataclasses import replace

import pytest

from cuttlefish.evidence.records import load_evidence
from cuttlefish.record.record import write_record
from tests.helpers.synthetic_records import record as synthetic


def record(**changes):
    usual = {"run_key": "0123456789ab", "preset": None, "device": "a CPU", "threads": 1}
    return synthetic(**(usual | changes))


def put(root, name, **changes):
    (root / name).mkdir(parents=True)
    return write_record(root / name, record(**changes))


def test_sound_records_are_read_in_order_and_unfinished_ones_are_kept_apart(tmp_path):
    put(tmp_path, "b/two", run_key="b" * 12)
    put(tmp_path, "a/one", run_key="a" * 12)
    (tmp_path / "c").mkdir()
    write_record(tmp_path / "c", replace(record(run_key="c" * 12), status="failed", error="x"))
    found = load_evidence(tmp_path)
    assert [run.record.run_key[0] for run in found.runs] == ["a", "b", "c"] and found.left_out == []
    assert [run.record.run_key[0] for run in found.finished] == ["a", "b"]
    assert found.runs[0].hardware == "a CPU · fp32 · 1 thread"
    assert found.runs[0].timed_on == ("a CPU · fp32 · 1 thread", "2")
    assert found.runs[0].cell == ("resnet18", "cifar10", "cuttlefish", None, "reduced", 30, "reduced")


def test_a_link_that_leads_nowhere_is_listed(tmp_path):
    put(tmp_path, "good")
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "record.json").symlink_to(tmp_path / "nowhere.json")
    found = load_evidence(tmp_path)
    assert len(found.runs) == 1 and "damaged" in found.left_out[0].reason


@pytest.mark.parametrize("content, words", [
    ("{", "damaged"), ("[]", "damaged"), ("\x00\xff", "damaged"), ("[" * 100_000, "damaged"),
    ("{}", "foreign"), ('{"schema": true}', "foreign"),
    ('{"schema": 0}', "an older schema (0; this suite reads 1)"), ('{"schema": 2}', "a newer schema"),
    ('{"schema": 1}', "unsound: status"),
    ('{"schema": 1, "status": []}', "unsound"),
])  # fmt: skip
def test_each_bad_record_is_left_out_with_its_reason(tmp_path, content, words):
    put(tmp_path, "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/record.json").write_bytes(content.encode("latin-1"))
    found = load_evidence(tmp_path)
    assert len(found.runs) == 1
    (left,) = found.left_out
    assert left.path == tmp_path / "bad/record.json" and words in left.reason


def test_a_copy_counts_once_and_a_repeat_counts(tmp_path):
    put(tmp_path, "a")
    put(tmp_path, "b")
    put(tmp_path, "c", started="2026-01-02T00:00:00+00:00", accuracy_final=70.0, device="another CPU")
    found = load_evidence(tmp_path)
    assert [run.path.parent.name for run in found.runs] == ["a", "c"]
    assert found.left_out[0].reason == f"a copy of {tmp_path / 'a/record.json'}"


def test_records_that_contradict_each_other_are_all_refused(tmp_path):
    put(tmp_path, "a")
    put(tmp_path, "b", accuracy_final=79.0)  # the same start: one of the two was edited
    put(tmp_path, "c", run_key="c" * 12)
    put(tmp_path, "d", run_key="c" * 12, seed=1, started="2026-01-02T00:00:00+00:00")
    put(tmp_path, "e", run_key="e" * 12)
    found = load_evidence(tmp_path)
    assert [run.path.parent.name for run in found.runs] == ["e"]
    assert ["unlike outcomes" in left.reason for left in found.left_out] == [True, True, False, False]
    assert all("stands for unlike runs" in left.reason for left in found.left_out[2:])


@pytest.mark.parametrize("change, path", [
    ({"data_digest": "other"}, "data_digest"), ({"params_full": 2000}, "params_full"),
    ({"setting": {"model": {"width": 32}}}, "model.width"),
    ({"setting": {"recipe": {"batch_size": 64}}}, "recipe.batch_size"),
    ({"setting": {"recipe": {"schedule": {"peak_lr": 9}}}}, None),
    ({"knobs": {"k": 3}}, "method.k"),
    ({"setting": {"trainer": {"device": "cuda", "precision": "bf16"}}}, None),
    ({"knobs": {"preset": "other", "profile_repeats": 11}}, None),
])  # fmt: skip
def test_a_repeat_is_of_the_same_data_size_and_config(tmp_path, change, path):
    put(tmp_path, "a", setting={"trainer": {"device": "cpu"}})
    changed = {"setting": {"trainer": {"device": "cpu"}}} | change
    put(tmp_path, "b", started="2026-01-02T00:00:00+00:00", **changed)
    reasons = [left.reason for left in load_evidence(tmp_path).left_out]
    told = f"in conflict: run key 0123456789ab stands for unlike runs ({path})"
    assert reasons == ([told] * 2 if path else [])


def test_a_run_that_failed_before_it_knew_its_size_contradicts_nothing(tmp_path):
    put(tmp_path, "a")
    (tmp_path / "b").mkdir()
    sizes = dict.fromkeys(("params_full", "params_total", "params_trainable", "params_nonzero"))
    failed = replace(record(started="2026-01-02T00:00:00+00:00"), status="failed", error="x", **sizes)
    write_record(tmp_path / "b", failed)
    found = load_evidence(tmp_path)
    assert [run.finished for run in found.runs] == [True, False] and found.left_out == []


def test_only_a_compiled_run_says_so(tmp_path):
    put(tmp_path, "a", setting={"trainer": {"compile": True}})
    assert load_evidence(tmp_path).runs[0].hardware == "a CPU · fp32 · 1 thread · compiled"


def test_an_empty_or_missing_folder_is_an_empty_collection(tmp_path):
    assert load_evidence(tmp_path / "none").runs == []
