"""Against the real package, offline; its run file is read back."""

import logging
import os
import socket
import sys

import pytest

from cuttlefish.config.schema import WandbConfig
from cuttlefish.loggers.base import Loggers, RunInfo
from cuttlefish.loggers.wandb import WandbLogger, labels, run_id
from tests.helpers.wandb_file import finished_run, history_of, items, run_of, summary_of

wandb = pytest.importorskip("wandb")


@pytest.fixture(scope="module")
def two_runs(made_up, tmp_path_factory):
    """Two jobs of one sweep, in one process, as Hydra's basic launcher runs them; the second fails."""
    from PIL import Image

    base = tmp_path_factory.mktemp("sweep")
    for name, epochs in (("a", 2), ("b", 1)):
        (base / name / "plots").mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(base / name / "plots" / "rank_curves.png")
        with Loggers([WandbLogger(WandbConfig("offline", project="tests", tags=["mine"]))]) as loggers:
            loggers.start(made_up.run_info(base / name))
            loggers.profile(made_up.profile())
            for epoch in range(epochs):
                loggers.ranks(made_up.rank_rows(epoch))
                loggers.epoch(made_up.epoch_row(epoch + 1) | {"test_loss": None})
            if name == "a":
                loggers.finish(made_up.record())
            assert len(loggers) == 1
    return {
        path.relative_to(base).parts[0]: finished_run(path)
        for path in base.glob("*/wandb/offline-run-*/*.wandb")
    }, base


def test_every_run_of_a_process_has_its_own_folder_and_id(two_runs):
    runs, base = two_runs
    assert sorted(runs) == ["a", "b"]
    ids = [run_of(records).run_id for records in runs.values()]
    assert len(set(ids)) == 2
    assert {(base / name / "wandb" / "run_id.txt").read_text().strip() for name in runs} == set(ids)


def test_the_config_has_no_secrets_paths_or_machine(two_runs):
    runs, _ = two_runs
    records = runs["a"]
    run = run_of(records)
    config = items(run.config.update)
    assert config["run_key"] == "3f2a9c81d0b7" and config["recipe"]["epochs"] == 12
    assert config["method"]["api_key"] == "REDACTED" and config["data"]["root"] == ".../data"
    assert (run.project, run.job_type, run.run_group) == ("tests", "cuttlefish", "resnet18-cifar10")
    found = set(run.tags)
    assert found == {"mine", "scale: reduced", "preset: scale_free", "recipe: reduced", "precision: fp32"}
    assert not any(record.HasField("environment") for record in records)


def test_no_name_of_the_machine_or_its_user_is_in_the_run_file(made_up, tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "anns-workstation")
    monkeypatch.setenv("WANDB_USERNAME", "ann-username")
    monkeypatch.setenv("WANDB_USER_EMAIL", "ann@mail.example")
    with Loggers([WandbLogger(WandbConfig("offline"))]) as loggers:
        loggers.start(made_up.run_info(tmp_path))
        loggers.finish(made_up.record())
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert finished_run(path)
    names = (b"anns-workstation", b"ann-username", b"ann@mail")
    assert [name for name in names if name in path.read_bytes()] == []


def test_metrics_curves_and_seconds_are_logged_by_epoch(two_runs, made_up):
    runs, _ = two_runs
    history = history_of(runs["a"])
    rows = [row for row in history if "train_loss" in row]
    found = [(row["epoch"], row["train_loss"], row["seconds/train"]) for row in rows]
    assert found == [(1, 2.3, 28.5), (2, 1.15, 28.5)]
    assert all("test_loss" not in row and row["params_total"] == 11173962 for row in rows)
    curve = {row["epoch"]: row["ranks/layer3.1.conv2"] for row in history if "ranks/layer3.1.conv2" in row}
    assert curve == pytest.approx(made_up.ranks_of("layer3.1.conv2", (0, 1)))
    metrics = [record.metric for record in runs["a"] if record.HasField("metric")]
    assert any(metric.glob_name == "*" and metric.step_metric == "epoch" for metric in metrics)


def test_summary_plots_and_exit_code(two_runs):
    runs, _ = two_runs
    summary = summary_of(runs["a"])
    assert summary["accuracy_final"] == 78.93
    assert summary["switch_epoch"] == 5
    assert summary["status"] == "finished"
    assert summary["total_seconds/train"] == 742.0 and summary["final_rank/layer2.0.conv1"] > 0
    assert any(key.startswith("plots/rank_curves") for key in summary)
    codes = {
        name: [record.exit.exit_code for record in records if record.HasField("exit")]
        for name, records in runs.items()
    }
    assert codes == {"a": [0], "b": [1]}


def one_warning(caplog, made_up, folder, mode="offline"):
    with caplog.at_level(logging.WARNING), Loggers([WandbLogger(WandbConfig(mode=mode))]) as loggers:
        loggers.start(made_up.run_info(folder))
        for epoch in (1, 2):
            loggers.epoch(made_up.epoch_row(epoch))
        loggers.finish(made_up.record())
    (warning,) = [record for record in caplog.records if record.name.startswith("cuttlefish")]
    return warning.getMessage()


def test_without_the_package_there_is_one_warning(caplog, made_up, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "WandbLogger stopped at start (ModuleNotFoundError" in one_warning(caplog, made_up, tmp_path)


def test_an_init_that_fails_does_not_stop_the_run(caplog, made_up, tmp_path, monkeypatch):
    def refuse(**_):
        raise TimeoutError("no answer in 20 s")

    monkeypatch.setattr(wandb, "init", refuse)
    assert "TimeoutError: no answer in 20 s" in one_warning(caplog, made_up, tmp_path)


def test_a_failure_in_the_middle_closes_the_run_once(caplog, made_up, tmp_path, monkeypatch):
    ended = []

    class FakeRun:
        summary: dict = {}

        def define_metric(self, *_, **__): ...

        def log(self, _):
            raise ConnectionError("gone")

        def finish(self, exit_code):
            ended.append(exit_code)

    asked = {}
    monkeypatch.setattr(wandb, "init", lambda **options: asked.update(options) or FakeRun())
    assert "stopped at epoch (ConnectionError: gone)" in one_warning(caplog, made_up, tmp_path, mode="online")
    assert ended == [1]
    assert asked["reinit"] == "create_new" and asked["resume"] == "allow" and asked["mode"] == "online"
    assert asked["settings"].init_timeout <= 30 and asked["settings"].silent


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_error_reports_are_off_unless_the_user_chose(mode, made_up, tmp_path, monkeypatch):
    monkeypatch.setattr(wandb, "init", lambda **_: (_ for _ in ()).throw(RuntimeError))
    for given, expected in ((None, "false"), ("true", "true")):
        monkeypatch.delenv("WANDB_ERROR_REPORTING", raising=False)
        if given:
            monkeypatch.setenv("WANDB_ERROR_REPORTING", given)
        Loggers([WandbLogger(WandbConfig(mode=mode))]).start(made_up.run_info(tmp_path))
        assert os.environ["WANDB_ERROR_REPORTING"] == expected


def test_a_resumed_run_keeps_its_id_and_a_repeat_gets_another(made_up, tmp_path):
    first = run_id(made_up.run_info(tmp_path))
    assert first.startswith("3f2a9c81d0b7-")
    assert run_id(made_up.run_info(tmp_path, resumed_from=4)) == first
    assert run_id(made_up.run_info(tmp_path / "elsewhere")) != first
    assert run_id(made_up.run_info(tmp_path)) != first


def test_a_given_group_wins_then_the_experiment_s_name(made_up):
    named = made_up.CONFIG | {"experiment_name": "reduced/cell"}
    assert labels(named, WandbConfig(group="table 1"))["group"] == "table 1"
    assert labels(named, WandbConfig())["group"] == "reduced/cell"


def test_control_characters_reach_neither_labels_nor_values(made_up, tmp_path):
    odd = "\x1b]0;owned\x07a\x00\nb"
    config = made_up.CONFIG | {"experiment_name": odd, "model": {"name": odd}, odd: {"note": [odd]}}
    with Loggers([WandbLogger(WandbConfig("offline", tags=[odd]))]) as loggers:
        loggers.start(RunInfo(tmp_path, config, made_up.KEY))
        loggers.finish(made_up.record(error=odd, ranks={odd: 3}))
        assert len(loggers) == 1
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records = finished_run(path)
    run = run_of(records)
    assert run.run_group == "]0;owneda b" and run.tags[0] == "]0;owneda b"
    assert run.display_name.startswith("]0;owneda b cifar10")
    assert items(run.config.update)["]0;owneda\nb"]["note"] == ["]0;owneda\nb"]
    summary = summary_of(records)
    assert summary["error"] == "]0;owneda\nb" and summary["final_rank/]0;owneda\nb"] == 3


def test_a_long_tag_is_cut_to_what_the_server_takes(made_up):
    found = max(map(len, labels(made_up.CONFIG | {"scale": "x" * 99}, WandbConfig(tags=["y" * 99]))["tags"]))
    assert found == 64
