"""make report over this repository's own evidence, and over none that it can read."""

import shutil

from cuttlefish.report.paper import PAPER
from scripts.report import RESULTS, main
from tests.helpers.synthetic_records import put


def test_the_committed_evidence(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "site")]) == 0
    index = tmp_path / "site" / "index.html"
    assert capsys.readouterr().out == f"{index}\n" and index.stat().st_size < 2_000_000
    text = index.read_text()
    records = list((RESULTS / "records").rglob("record.json"))
    assert len(records) >= len(list((tmp_path / "site" / "runs").iterdir())) >= 2
    for anchor in ('id="claims"', 'id="table1-reduced"', 'id="figures"', 'id="runs"'):
        assert anchor in text


def test_runs_that_count_for_no_claim_are_listed(tmp_path):
    for name in ("claims.yaml", "tables.yaml"):
        shutil.copy(PAPER / name, tmp_path / name)
    odd = put(tmp_path, setting={"model": {"width": 32}})
    assert main(["--results", str(tmp_path), "--paper", str(tmp_path)]) == 0
    text = (tmp_path / "report" / "index.html").read_text()
    reason = "counts for no claim: not what the reduced scale is: model.width=32"
    told = f"<dt>{odd.run_key}/record.json</dt><dd>{reason}</dd>"
    assert told in text and "1 record<" in text


def test_a_damaged_claims_file_is_one_sentence(tmp_path, capsys):
    for name in ("claims.yaml", "tables.yaml"):
        shutil.copy(PAPER / name, tmp_path / name)
    (tmp_path / "claims.yaml").write_text("- [")
    assert main(["--results", str(tmp_path), "--paper", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("cuttlefish: ") and "claims.yaml" in told and told.count("\n") == 1
