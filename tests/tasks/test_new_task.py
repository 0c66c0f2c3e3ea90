"""A task of another kind is one module and one conf file; here a regression with a mapping as inputs."""

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cuttlefish.config.compose import compose_config
from cuttlefish.config.schema import DataConfig
from cuttlefish.display.format import number
from cuttlefish.engine.reevaluate import reevaluate
from cuttlefish.engine.run import resolve_run
from cuttlefish.engine.step import StepRunner
from cuttlefish.errors import CuttlefishError
from cuttlefish.evidence.agreement import differences
from cuttlefish.process.outcomes import show_table, success
from cuttlefish.record.folder import read_epochs
from cuttlefish.record.record import read_record, validate_record
from cuttlefish.replay import main as replay
from cuttlefish.tasks import sets
from cuttlefish.tasks.registry import data_set
from cuttlefish.worker import run_config
from tests.helpers.stopping import stopping_after
from tests.helpers.tasks import toy

CONF = Path(__file__).resolve().parents[2] / "conf"
WORDS = [
    "data=toy",
    "model=resnet18",
    "model.width=4",
    "trainer=deterministic",
    "trainer.device=cpu",
    "logger=quiet",
    "recipe.epochs=3",
    "recipe.batch_size=16",
    "recipe.schedule.warmup_epochs=0",
    "recipe.schedule.peak_lr=0.01",
]
CUTTLEFISH = ["method=cuttlefish", "method.k=1", "method.switch_epoch=1", "method.rank_ratio=0.25"]


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """Adds the task as its author would: a module beside the others, and a conf file."""
    monkeypatch.setattr(sets, "__path__", [*sets.__path__, str(Path(toy.__file__).parent)])
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf" / "data" / "toy.yaml").write_text("name: toy\nkind: toy\nnoise: 0.1\nsize: 40\n")
    yield tmp_path / "conf"
    sys.modules.pop("cuttlefish.tasks.sets.toy", None)


def composed(conf, folder, *words):
    return compose_config(conf, [*WORDS, *words, f"run_dir={folder}"])


@pytest.mark.parametrize("method", [[], CUTTLEFISH], ids=["full_rank", "cuttlefish"])
def test_a_regression_trains_and_is_recorded(conf, tmp_path, method):
    config = composed(conf, tmp_path / "run", *method)
    record = run_config(config)
    assert validate_record(read_record(tmp_path / "run")) == []
    assert record.metric == "pearson" and record.metrics.keys() == {
        "pearson",
        "mae",
        "pearson_far",
        "mae_far",
    }
    assert (record.accuracy_final, record.accuracy_best) == (None, None)
    rows = [row["metrics"] for row in read_epochs(tmp_path / "run")]
    assert rows[-1] == record.metrics
    assert record.metrics_best["pearson"] == max(row["pearson"] for row in rows)
    assert record.metrics_best["mae"] == min(row["mae"] for row in rows)
    assert bool(record.ranks) == bool(method)
    run = resolve_run(config)
    scores = reevaluate(run.config, run.key, run.folder)
    assert (scores.metrics, scores.loss) == (record.metrics, record.loss_final)


@pytest.mark.parametrize("steps", [1, 4, 6])
def test_it_resumes_to_the_same_bits_at_any_step(conf, tmp_path, monkeypatch, steps):
    whole = run_config(composed(conf, tmp_path / "whole", *CUTTLEFISH))
    config = composed(conf, tmp_path / "run", *CUTTLEFISH, "trainer.checkpoint_minutes=0.0000001")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StepRunner, "step", stopping_after(steps))
        run_config(config)
    resumed = run_config(config)
    assert (resumed.loss_final, resumed.metrics, resumed.ranks) == (
        whole.loss_final,
        whole.metrics,
        whole.ranks,
    )


def test_its_settings_are_typed_and_in_the_key(conf, tmp_path):
    config = composed(conf, tmp_path / "run")
    assert data_set(config.data).settings(config.data).size == 40
    key = resolve_run(config).key
    assert resolve_run(composed(conf, tmp_path / "run", "data.size=60")).key != key
    with pytest.raises(CuttlefishError, match=r"data\.size must be a whole number or null, not 'big'"):
        resolve_run(composed(conf, tmp_path / "run", "data.size=big"))
    with pytest.raises(CuttlefishError, match=r"no key data\.seize for toy; did you mean data\.size\?"):
        data_set(DataConfig(name="toy", kind="toy", settings={"seize": 1}))
    with pytest.raises(CuttlefishError, match=r"data\.flip does not apply to data=toy: it is a setting of "):
        data_set(DataConfig(name="toy", kind="toy", flip=True))
    with pytest.raises(CuttlefishError, match=r"no key data\.noise for digits"):
        data_set(DataConfig(name="digits", kind="digits", settings={"noise": 1}))


def test_its_headline_metric_is_shown_everywhere(conf, tmp_path, capsys):
    """Console, CSV, summary, plots, a sweep's table, page rows and a replay."""
    words = ["logger.console=true", "logger.csv=true", "logger.plots=true"]
    record = run_config(composed(conf, tmp_path / "run", *words))
    told, score = capsys.readouterr().out, number(record.score)
    assert f"pearson {score}" in told and "accuracy" not in told
    assert re.search(rf"pearson +final {re.escape(score)}", told)
    header = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"test_pearson", "test_mae", "test_pearson_far"} <= set(header) and "test_accuracy" not in header
    assert "Loss and pearson" in (tmp_path / "run" / "plots" / "training.svg").read_text()
    show_table([success("seed=0", composed(conf, tmp_path / "run"), "finished", record)])
    assert f"pearson {score}" in capsys.readouterr().out
    again = replace(record, metrics={**record.metrics, "pearson": record.score - 5})
    assert [each.name for each in differences(record, again, False) if not each.within] == ["pearson"]


def test_it_is_forked_and_replayed(conf, tmp_path, monkeypatch, capsys):
    run_config(composed(conf, tmp_path / "origin", *CUTTLEFISH))
    later = [word for word in CUTTLEFISH if "switch_epoch" not in word] + ["method.switch_epoch=2"]
    alone = run_config(composed(conf, tmp_path / "alone", *later))
    fork = run_config(composed(conf, tmp_path / "fork", *later, f"fork_from={tmp_path / 'origin'}"))
    assert (fork.metrics, fork.ranks, fork.loss_final) == (alone.metrics, alone.ranks, alone.loss_final)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert replay([f"replay={tmp_path / 'alone'}"]) == 0
    told = capsys.readouterr().out
    assert "expected: the same bits" in told and "pearson" in told
