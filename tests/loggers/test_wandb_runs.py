"""A project made again from records holds what the records hold."""

import pytest

from cuttlefish.record.record import write_record
from scripts.wandb_runs import identity_of, main
from tests.helpers.wandb_file import finished_run, items

pytest.importorskip("wandb")


@pytest.fixture(scope="module")
def rebuilt(made_up, tmp_path_factory):
    """(the run file's records, what lies in the record's folder before and after)."""
    base = tmp_path_factory.mktemp("rebuild")
    made_up.write_run(base / "records" / "a")
    write_record(base / "records" / "a", made_up.record(config=made_up.CONFIG))
    before = sorted(path.name for path in (base / "records").rglob("*"))
    assert main([str(base / "records"), "--out", str(base / "out"), "--project", "again"]) == 0
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


def test_a_repeat_has_another_identity_and_odd_keys_are_tamed(made_up):
    assert identity_of(made_up.record()) == identity_of(made_up.record())
    assert identity_of(made_up.record()) != identity_of(made_up.record(started="2026-01-02T00:00:00+00:00"))
    assert set("/\\#?%: ") & set(identity_of(made_up.record(run_key="../a #b?"))) == set()


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert told.err == f"cuttlefish: there is no folder {tmp_path / 'nowhere'}\n" and told.out == ""
