"""Records with wrong values in every field go through claims, tables, figures and pages: listed and left out,
or shown; never a crash."""

import json

import pytest

from cuttlefish.display import style
from cuttlefish.evidence.records import Collection, Evidence, load_evidence
from cuttlefish.planning.cost import Estimates
from cuttlefish.planning.planned_run import PlannedRun
from cuttlefish.record.fields import FIELDS
from cuttlefish.report.claims.entry import load_claims
from cuttlefish.report.claims.judge import judge
from cuttlefish.report.figures.base import sources_of
from cuttlefish.report.figures.gallery import FIGURES
from cuttlefish.report.page.site import Report, write_site
from cuttlefish.report.paper import PAPER
from cuttlefish.report.tables.build import all_tables
from tests.helpers.finished import DENSE
from tests.helpers.planned_runs import CLAIMS, spec_of, wanted
from tests.helpers.synthetic_records import rank_rows, record
from tests.record.test_run_folder import HEADER

METHODS = ("full_rank", "cuttlefish", "pufferfish")
VALUES = [
    [["?"]], "x", "a/../b", "\ud800", "\0", "", {}, {"x": "y"}, {"x": None}, {"x": {"y": [None]}},
    {"ranks": "x"}, {"ranks": 10**400}, [], 0, 1, -1,
    2**63, 10**400, 0.5, 1e300, True, None,
]  # fmt: skip
INSIDE = [
    {"config": {"method": "x"}}, {"config": {"method": [1]}}, {"config": {"recipe": "x"}},
    {"config": {"recipe": {"schedule": "x"}}},
    *({"config": {"recipe": {"schedule": {"milestones": bad}}}} for bad in ("x", 3, {}, [None], ["x"], [float("nan")], [1e300], [-1])),
    {"config": {"method": {"rank_ratio": "x"}}}, {"config": {"model": {"width": [1]}}},
    {"config": {"\ud800": 1}}, {"seconds": {"ranks": None}},
    {"seconds": {"ranks": -1}}, {"ranks": {"conv1": 10**400}}, {"ranks": {"\ud800": 1}}, {"phases": ["x"]},
    {"metrics": {"f1": "x"}},
]  # fmt: skip
CHANGES = [{name: value} for name in FIELDS for value in VALUES] + INSIDE


def made(method: str, seed: int) -> dict:
    low = {"switch_epoch": 3, "k": seed % 4, "ranks": {"layer3.0.conv1": 4, "layer4.0.conv1": 8}}
    own = DENSE if method == "full_rank" else low
    return record(method, seed, run_key=f"{method[0]}{seed:011x}", **own)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """A sound run of each of three methods (seed 0), and for every change a run (of a seed of its own) that
    has it."""
    root = tmp_path_factory.mktemp("damaged") / "records"
    rows = rank_rows(lambda layer, epoch: 1 / (1 + epoch))
    lines = "\n".join([HEADER, *(",".join(map(str, row.values())) for row in rows), ""])
    made_up = [
        vars(made(method, seed)) | change for seed, change in enumerate([{}, *CHANGES]) for method in METHODS
    ]
    for number, content in enumerate(made_up):
        folder = root / f"{number:05}"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps(content))
        (folder / "ranks.csv").write_text(lines)
    return load_evidence(root)


def planned(run: Evidence, table: str = "table1") -> PlannedRun:
    """What the run was made for, whatever its record says now."""
    number = int(run.path.parent.name)
    method = METHODS[number % 3]
    point = (("method.k", str(number % 4)),) if method == "pufferfish" else ()
    return wanted(
        method, number // 3, table=table, label="x", baseline=method == "full_rank", point=point,
        run_key=run.record.run_key,
    )  # fmt: skip


def batches(collection: Collection):
    """The runs that count, together where they are of one setting; each of another setting beside the sound
    ones only, for no claim averages settings."""
    sound, together = collection.runs[:3], []
    for run in collection.runs:
        if CHANGES[planned(run).seed - 1].keys() & {"config", "epochs", "data_digest"} and run not in sound:
            yield [*sound, run]
        else:
            together.append(run)
    yield together


def needed(run: Evidence) -> list[str]:
    """A cell is not drawn if a run of it lacks these."""
    return ["accuracy_final"] if run.record.method == "full_rank" else ["accuracy_final", "ranks", "k"]


def test_none_vanishes(collection):
    assert len(collection.runs) + len(collection.left_out) == 3 * len(CHANGES) + 3
    assert [run.path.parent.name for run in collection.runs[:3]] == ["00000", "00001", "00002"]


def test_claims_tables_and_costs_survive(collection):
    claims = load_claims(PAPER / "claims.yaml")
    for runs in batches(collection):
        few, plans = Collection(runs, []), list(map(planned, runs))
        judge(few, [], claims)
        all_tables(spec_of(), plans, few, CLAIMS, "reduced")
        estimates = Estimates(plans, plans, few)
        list(map(estimates.hours, plans))


@pytest.mark.parametrize("name", ["figure1", "figure1-methods", "figure2", "figure3", "figure5"])
def test_figures_survive(collection, name):
    tables = ("table1", "figure1", "figure3", "figure5")
    plans = [planned(run, table) for run in collection.finished for table in tables]
    drawable = [run for run in collection.finished if all(getattr(run.record, name) for name in needed(run))]
    with style.styled():
        _, draw = FIGURES[name]
        assert draw(sources_of(Collection(drawable, []), [], "reduced", plans))


def test_pages_survive(collection, tmp_path):
    write_site(Report(tmp_path, collection), tmp_path / "out")
