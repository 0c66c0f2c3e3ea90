"""Which size `target_params=` and `match=` name."""

import json
from types import SimpleNamespace

import pytest

from cuttlefish.errors import CuttlefishError
from cuttlefish.methods.sized import resolve_target
from cuttlefish.methods.target import Target, find_target, target_from_state, target_state

KEY = "0123456789ab"


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(path, **fields):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            json.dumps(
                {
                    "schema": 1,
                    "run_key": KEY,
                    "status": "finished",
                    "method": "cuttlefish",
                    "params_total": 90,
                    "params_nonzero": 80,
                }
                | fields
            )
        )
        return file

    return write


@pytest.mark.parametrize("folder", ["runs/x/{}", "runs/x/{}-bf16", "results/records/reduced/x/seed1-{}"])
def test_a_run_key_is_found_where_runs_and_records_lie(write, folder):
    write(f"{folder.format(KEY)}/record.json")
    assert find_target(None, KEY) == Target(80, f"run {KEY} (cuttlefish)")


def test_a_folder_or_a_file_is_taken_as_it_is(write):
    file = write("elsewhere/record.json", params_nonzero=None)
    assert find_target(None, str(file)).params == find_target(None, str(file.parent)).params == 90


def test_a_campaign_s_config_of_that_key_is_not_its_record(write):
    write(f"runs/campaign-reduced/configs/{KEY}.json", status=None)
    with pytest.raises(CuttlefishError, match="neither a path nor the run key of a record"):
        find_target(None, KEY)
    write(f"runs/reduced/x/{KEY}/record.json")
    assert find_target(None, KEY).params == 80


def test_of_several_a_finished_one_counts(write):
    write(f"runs/a/{KEY}/record.json", status="interrupted", params_total=None)
    with pytest.raises(CuttlefishError, match="has not finished"):
        find_target(None, KEY)
    write(f"runs/b/{KEY}/record.json")
    assert find_target(None, KEY).params == 80


@pytest.mark.parametrize("key", ["0123", "f" * 12])
def test_part_of_a_key_or_another_key_is_none(write, key):
    write(f"runs/x/{KEY}/record.json")
    with pytest.raises(CuttlefishError, match="neither a path nor the run key"):
        find_target(None, key)


def test_one_size_only(write):
    assert find_target(7, None) == Target(7, "target_params") and find_target(None, None) is None
    with pytest.raises(CuttlefishError, match="not both"):
        find_target(7, KEY)


def test_a_run_that_goes_on_keeps_the_size_it_began_with(write):
    file, saved = write("runs/x/record.json"), {}
    settings, context = (
        SimpleNamespace(target_params=None, match=str(file)),
        SimpleNamespace(saved=lambda: saved),
    )
    begun = resolve_target(settings, context)
    assert begun == find_target(None, str(file))
    saved |= target_state(begun)
    file.unlink()
    assert resolve_target(settings, context) == target_from_state(saved) == begun
    assert target_state(None) == {} and target_from_state({}) is None
