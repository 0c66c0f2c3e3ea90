"""Benches with wrong values are left out and told: claims and figures never meet them."""

import json
import re
from pathlib import Path

import pytest

from cuttlefish.display import style
from cuttlefish.evidence.benches import load_benches
from cuttlefish.evidence.records import load_evidence
from cuttlefish.report.claims.entry import load_claims
from cuttlefish.report.claims.judge import judge
from cuttlefish.report.figures import figure4, figure6
from cuttlefish.report.figures.base import NoData, sources_of
from cuttlefish.report.paper import PAPER

RESULTS = Path(__file__).resolve().parents[2] / "results"
KINDS = ("steps", "ranks", "overhead", "profile")
READ = sorted(path for kind in KINDS for path in (RESULTS / "bench").glob(f"{kind}-*.json"))
GONE = object()
UNREAD = set(
    "commit packages input device rounds small first_step_s gflop_per_s of_fp32_matmul matmul_gflop_per_s "
    "share".split()
)


def test_our_own_are_all_read():
    assert len(load_benches(RESULTS / "bench")) == len(list((RESULTS / "bench").glob("*.json")))
    assert len(READ) >= 7


@pytest.fixture(scope="module")
def evidence():
    """Our runs, and the claims that benches answer."""
    claims = load_claims(PAPER / "claims.yaml")
    return load_evidence(RESULTS / "records"), [
        claim for claim in claims if re.search("composed|step_saving|profiled_k|layer_speedup", str(claim))
    ]


def damaged(content: dict, bad: object):
    """The bench once for every fact, and for every value of its first row and repetition, that is bad."""
    for place in (lambda it: it, lambda it: it["rows"][0], lambda it: (it.get("repeats") or [{}])[0]):
        for name in place(content).keys() - UNREAD:
            copy = json.loads(json.dumps(content))
            place(copy).pop(name) if bad is GONE else place(copy).update({name: bad})
            yield copy


@pytest.mark.parametrize(
    "path",
    [path for path in READ if "vgg19" not in path.name],
    ids=lambda path: "-".join(path.name.split("-")[:3]),
)
def test_a_bad_value_crashes_neither_claims_nor_figures(tmp_path, evidence, path):
    for other in READ:
        (tmp_path / other.name).write_bytes(other.read_bytes())
    for bad in (GONE, None, "x", 0, [None], {}, [[1.0]], 10**400):
        for content in damaged(json.loads(path.read_text()), bad):
            (tmp_path / path.name).write_text(json.dumps(content))
            benches = load_benches(tmp_path)
            if path.name in {bench.name for bench in benches}:
                judge(evidence[0], benches, evidence[1])
                draw([bench for bench in benches if bench.name == path.name])


def draw(benches):
    for figure in (figure4, figure6):
        with style.styled():
            try:
                figure.draw(sources_of(load_evidence("none"), benches, "reduced"))
            except NoData:
                pass


def test_what_is_left_out_is_told(tmp_path, caplog):
    content = json.loads(next(path for path in READ if path.name.startswith("steps")).read_text())
    del content["rows"][3]["step_s"]
    (tmp_path / "steps-x.json").write_text(json.dumps(content))
    assert load_benches(tmp_path) == []
    assert "steps-x.json is not a bench and is left out: step_s is None" in caplog.text


@pytest.mark.parametrize("what", ["ranks", "overhead", "methods", "processes"])
def test_rounds_of_any_bench_are_lists_of_seconds(tmp_path, what):
    row = {"part": "data", "per": "epoch", "width": 16, "seconds": 1.0, "ours_s": 1.0}
    row |= {"params_nonzero": 1, "rounds_s": 3}
    (tmp_path / f"{what}-x.json").write_text(json.dumps({"hardware": "a CPU, 2 cores", "rows": [row]}))
    assert load_benches(tmp_path) == []
