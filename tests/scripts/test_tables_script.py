"""python -m scripts.tables in a folder of its own: dry run, collation, refusals and (slow) real smoke
runs."""

import shutil
from pathlib import Path

import pytest
import yaml

from cuttlefish.report.paper import PAPER
from scripts.tables import main

HERE = Path(__file__).resolve().parents[2]
QUIET = ["debug=smoke", "logger=quiet", "trainer.device=cpu"]


def tables(data: str) -> str:
    """A part of the repository's own tables, swept over ResNet-18 and one data set."""
    spec = yaml.safe_load((PAPER / "tables.yaml").read_text())
    kept = {name: spec["tables"][name] for name in ("table1", "figure3", "table5")}
    for name, table in kept.items():
        table.update(sweep={"model": ["resnet18"], "data": [] if name == "table1" else [data]}, paper=[])
    reduced = {key: spec["scales"]["reduced"][key] for key in ("words", "kind")}
    smoke = {"words": QUIET, "kind": "equal budget", "match": False}
    return yaml.safe_dump({"scales": {"paper": {}, "reduced": reduced, "smoke": smoke}, "tables": kept})


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A checkout with its own results; conf and code are the repository's."""
    monkeypatch.setenv("CUTTLEFISH_CACHE", str(tmp_path / "cache"))
    for name in ("conf", "cuttlefish", "baselines", "run.py"):
        (tmp_path / name).symlink_to(HERE / name)
    (tmp_path / "results" / "records").mkdir(parents=True)
    (tmp_path / "paper").mkdir()
    shutil.copy(PAPER / "claims.yaml", tmp_path / "paper")
    (tmp_path / "paper" / "tables.yaml").write_text(tables("cifar10"))
    return tmp_path


def call(root, *words):
    return main([*words, "--root", str(root), "--paper", str(root / "paper")])


def test_collation_shows_committed_records_and_what_was_left_out(root, capsys):
    kept = next((HERE / "results" / "records" / "reduced" / "resnet18-cuttlefish").glob("seed0-53718b811d16"))
    shutil.copytree(kept, root / "results" / "records" / "a")
    (root / "results" / "records" / "b").mkdir()
    (root / "results" / "records" / "b" / "record.json").write_text("{")
    assert call(root, "--collate-only") == 0
    written = root / "results" / "tables" / "reduced"
    shown = (written / "table5.md").read_text()
    assert "| no extra BN, Frobenius decay | 1 | 76.12 (76.20) † | 230,282 (3.05×) † |" in shown
    assert "| extra BN | – |" in shown
    assert "`results/records/b/record.json`: damaged" in (written / "left_out.md").read_text()
    assert "results/records/b/record.json" in capsys.readouterr().err
    before = {path.name: path.read_bytes() for path in written.iterdir()}
    assert call(root, "--collate-only") == 0
    assert {path.name: path.read_bytes() for path in written.iterdir()} == before
    assert not (root / "runs").exists()


def test_a_dry_run_lists_states_and_writes_nothing(root, capsys, monkeypatch):
    monkeypatch.setenv("CUTTLEFISH_DATA", str(root / "nowhere"))
    assert call(root, "table5", "--dry-run", "--seeds", "0,1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-2].strip() for line in lines[:4]] == ["data absent"] * 4 and len(lines) == 5
    assert not (root / "results" / "tables").exists()


def test_a_part_of_a_table_is_picked_by_row_model_and_data(root, capsys):
    words = "table5 row=with_bn model=resnet18 data=cifar10 --dry-run --seeds 0,1"
    assert call(root, *words.split()) == 0
    rows = [line.split("  ")[2].strip() for line in capsys.readouterr().out.splitlines()[:-1]]
    assert rows == ["extra BN"] * 2


def test_runs_without_their_data_say_where_it_is_looked_for(root, capsys, monkeypatch):
    monkeypatch.setenv("CUTTLEFISH_DATA", str(root / "nowhere"))
    assert call(root, "table5", "row=with_bn") == 0
    assert capsys.readouterr().err.startswith(
        "not run: extra BN, resnet18 on cifar10, seed 0: data absent; CUTTLEFISH_DATA names its folder\n"
    )
    assert not (root / "runs").exists()


@pytest.mark.parametrize(
    "words, told",
    [
        (["table5", "row=with_bm"], "did you mean with_bn"),
        (["table5", "data=cifar100"], "data=cifar100 is of no run here"),
        (["tabel5"], "no table or figure 'tabel5'"),
        (["--scale", "tiny"], "no scale 'tiny'"),
        (["recipe.epochs=3"], "recipe.epochs=3 would make other"),
    ],
)
def test_mistakes_end_in_one_sentence(root, capsys, words, told):
    assert call(root, *words, "--collate-only") == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1


def test_seeds_are_numbers(root, capsys):
    with pytest.raises(SystemExit):
        call(root, "--seeds", "0,one")
    assert "0,one is not a list of seeds" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["- [", "- 3", None])
def test_claims_that_cannot_be_read_end_in_one_sentence(root, capsys, text):
    claims = root / "paper" / "claims.yaml"
    claims.unlink() if text is None else claims.write_text(text)
    assert call(root, "--collate-only") == 2
    said = capsys.readouterr().err
    assert "claims.yaml" in said and said.count("\n") == 1


@pytest.mark.slow
def test_missing_runs_are_run_once_and_collated(root, capsys):
    (root / "paper" / "tables.yaml").write_text(tables("synthetic"))
    assert call(root, "table5", "figure3", "--scale", "smoke") == 0
    assert "| extra BN | 1 |" in (root / "results" / "tables" / "smoke" / "table5.md").read_text()
    records = sorted((root / "runs" / "debug").rglob("record.json"))
    stamps = [path.stat().st_mtime_ns for path in records]
    assert len(records) == 4 and not any((root / "results" / "records").iterdir())
    assert call(root, "table5", "figure3", "--scale", "smoke") == 0
    assert [path.stat().st_mtime_ns for path in records] == stamps
    assert call(root, "table5", "--scale", "smoke", "--dry-run") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing to do"
