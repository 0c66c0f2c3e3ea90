"""Several runs at once: each config is trained, a bad one spoils no other, finished ones are passed over."""

import json

from cuttlefish.config.validate import to_dict
from cuttlefish.record.record import read_record
from scripts.slice.pool import main
from tests.helpers.runs import little_config


def test_all_configs_are_trained_and_a_bad_one_is_told(tmp_path, capfd):
    configs = tmp_path / "configs"
    configs.mkdir()
    for name in ("000-a", "002-c"):
        config = to_dict(little_config(tmp_path / "runs" / name, recipe__epochs=1))
        (configs / f"{name}.json").write_text(json.dumps(config))
    (configs / "001-b.json").write_text('{"recipe": {"epochs": 0}}')
    assert main([str(configs), "--jobs", "2"]) == 2
    told = capfd.readouterr().out
    assert "001-b: exit code 2" in told and "recipe.epochs" in told
    assert {read_record(tmp_path / "runs" / name).status for name in ("000-a", "002-c")} == {"finished"}
