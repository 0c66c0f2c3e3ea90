"""A project made again from records holds what the records hold; what is sent is what ended and was not sent."""

import subprocess

import pytest

from cuttlefish.config.schema import WandbConfig
from cuttlefish.loggers.wandb_again import identity_of, waiting
from cuttlefish.record.record import write_record
from scripts.wandb_runs import main
from tests.loggers.wandb_file import finished_run, items

pytest.importorskip("wandb")


@pytest.fixture(scope="module")
def rebuilt(made_up, tmp_path_factory):
    """(the run file's records, what lies in the record's folder before and after)."""
    base = tmp_path_factory.mktemp("rebuild")
    made_up.write_run(base / "records" / "a")
    write_record(base / "records" / "a", made_up.record(config=made_up.CONFIG))
    before = sorted(path.name for path in (base / "records").rglob("*"))
    assert (
        main(
            ["rebuild", str(base / "records"), "--offline", "--out", str(base / "out"), "--project", "again"]
        )
        == 0
    )
    (path,) = base.glob("out/*/wandb/offline-run-*/*.wandb")
    return finished_run(path), before, sorted(path.name for path in (base / "records").rglob("*"))


def test_config_labels_and_identity(rebuilt, made_up):
    records, before, after = rebuilt
    run = next(record.run for record in records if record.HasField("run"))
    config = items(run.config.update)
    assert (run.project, run.job_type, run.run_id) == ("again", "cuttlefish", identity_of(made_up.record()))
    assert config["run_key"] == made_up.KEY and config["recipe"]["epochs"] == made_up.EPOCHS
    assert config["method"]["api_key"] == "REDACTED" and config["data"]["root"] == ".../data"
    assert before == after


def test_every_epoch_rank_and_field_is_there(rebuilt, made_up):
    records, _, _ = rebuilt
    history = [items(record.history.item) for record in records if record.HasField("history")]
    rows = {row["epoch"]: row for row in history if "train_loss" in row}
    assert sorted(rows) == list(range(1, made_up.EPOCHS + 1))
    for epoch, row in rows.items():
        expected = made_up.epoch_row(epoch)
        assert all(
            row[name] == expected[name] for name in ("train_loss", "test_accuracy", "lr", "params_total")
        )
    for epoch in range(made_up.E + 1):
        (logged,) = [row for row in history if row["epoch"] == epoch and "ranks/layer4.1.conv2" in row]
        assert {
            f"ranks/{row['layer']}": row["stable_rank"] for row in made_up.rank_rows(epoch)
        }.items() <= logged.items()
    summary = {}
    for record in records:
        if record.HasField("summary"):
            summary |= items(record.summary.update)
    assert (
        summary["accuracy_final"] == 78.93
        and summary["switch_epoch"] == made_up.E
        and summary["started"] == "2026-01-01T00:00:00+00:00"
    )
    assert [record.exit.exit_code for record in records if record.HasField("exit")] == [0]


def test_a_repeat_has_another_identity_and_a_stranger_s_key_is_tamed(made_up):
    assert identity_of(made_up.record()) == identity_of(made_up.record())
    assert identity_of(made_up.record()) != identity_of(made_up.record(started="2026-01-02T00:00:00+00:00"))
    assert set("/\\#?%: ") & set(identity_of(made_up.record(run_key="../a #b?"))) == set()


def offline(root, name, *files):
    folder = root / name / "wandb" / f"offline-run-2026-{name}"
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).write_text("")
    return folder


def test_only_what_has_ended_and_was_not_sent_waits(tmp_path, made_up):
    ended = offline(tmp_path, "ended", "run-x.wandb")
    offline(tmp_path, "running", "run-x.wandb")
    sent = offline(tmp_path, "sent", "run-x.wandb", "run-x.wandb.synced")
    offline(tmp_path, "empty")
    for folder in (ended, sent):
        write_record(folder.parent.parent, made_up.record())
    assert list(waiting([tmp_path])) == [ended]


def test_an_upload_that_fails_is_told_and_fails_the_command(tmp_path, made_up, monkeypatch, capsys):
    """The real `wandb sync`, without a login."""
    folder = offline(tmp_path, "ended", "run-x.wandb")
    write_record(folder.parent.parent, made_up.record())
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    assert main(["upload", str(tmp_path), "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(folder), "1 of 1 waiting"]
    assert main(["upload", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert (
        told.err.startswith(f"cuttlefish: {folder}: ")
        and "API key" in told.err
        and told.out == "0 of 1 sent\n"
    )


def test_a_sync_that_hangs_is_given_up(tmp_path, monkeypatch):
    from cuttlefish.errors import CuttlefishError
    from cuttlefish.loggers import wandb_again

    monkeypatch.setattr(wandb_again.sys, "executable", "/bin/sh")
    (tmp_path / "wandb").write_text("")
    with pytest.raises(CuttlefishError, match="did not answer within 0 s"):
        wandb_again.send(tmp_path, WandbConfig(), seconds=0.0)


def test_a_sync_that_ends_well_without_having_sent_all_is_told(tmp_path, monkeypatch):
    from cuttlefish.errors import CuttlefishError
    from cuttlefish.loggers import wandb_again

    told = subprocess.CompletedProcess(
        [], 0, stdout="wandb: ERROR the file ends with an incomplete record\n", stderr=""
    )
    monkeypatch.setattr(wandb_again.subprocess, "run", lambda *_, **__: told)
    with pytest.raises(CuttlefishError, match="incomplete record"):
        wandb_again.send(tmp_path, WandbConfig())
    (tmp_path / "run-x.wandb.synced").touch()
    wandb_again.send(tmp_path, WandbConfig())


def test_folders_may_stand_behind_options_and_offline_needs_a_place(tmp_path, capsys):
    assert main(["rebuild", "--offline", "--out", str(tmp_path / "out"), str(tmp_path)]) == 0
    assert "0 of 0 logged again" in capsys.readouterr().out
    assert main(["rebuild", "--offline"]) == 2 and "needs --out" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["upload"], ["rebuild"]])
def test_a_folder_that_is_not_there_is_one_sentence(tmp_path, capsys, words):
    assert main([*words, str(tmp_path / "nowhere")]) == 2
    told = capsys.readouterr()
    assert told.err == f"cuttlefish: there is no folder {tmp_path / 'nowhere'}\n" and told.out == ""
