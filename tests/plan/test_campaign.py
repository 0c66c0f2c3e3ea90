"""Which run comes next, what the ledger says, and that no started run goes unreported."""

import hashlib
import io
import json
import os
import signal
import tarfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from cuttlefish.config.validate import to_dict
from cuttlefish.errors import CuttlefishError, Interrupted
from cuttlefish.plan import archive as archives
from cuttlefish.plan.archive import pack, unpack
from cuttlefish.plan.campaign import CONFIGS, GRACE, LEDGER, MANIFEST, Campaign
from cuttlefish.plan.manifest import Block, Order, ordered_runs, read_order
from cuttlefish.plan.planned_run import PlannedRun
from cuttlefish.process.signals import StopSignals
from cuttlefish.worker import identify
from scripts import campaign as command
from tests.report.synthetic_records import record as synthetic
from tests.runs import little_config

ROOT = Path(__file__).resolve().parents[2]


def planned(name, key, epochs=10, **more):
    fields = dict(
        table="table1", row=name, label=name, kinds=("equal budget",), baseline=name == "full_rank", model="resnet18", data="synthetic", scale="free",
        seed=0, point=(), run_key=key, words=(), folder=f"runs/x/{key}", epochs=epochs,
    )  # fmt: skip
    return PlannedRun(**(fields | more))


@pytest.fixture
def campaign(tmp_path):
    """Two runs of equal length behind a finished baseline of 100 s, and one three times as long."""
    runs = [
        planned("full_rank", "a" * 12),
        planned("short", "b" * 12),
        planned("long", "c" * 12, epochs=30),
        planned("other", "d" * 12),
    ]
    return made(tmp_path, runs)


def made(home, runs):
    for run in runs:
        (home / CONFIGS).mkdir(exist_ok=True)
        (home / CONFIGS / f"{run.run_key}.json").write_text(
            json.dumps(to_dict(little_config(home / run.folder)))
        )
    (home / MANIFEST).write_text(json.dumps({"scale": "free", "runs": [asdict(run) for run in runs]}))
    return Campaign.read(home, home)


def finish(campaign, run, seconds=100.0):
    folder = campaign.root / run.folder
    folder.mkdir(parents=True)
    fields = dict(
        run_key=run.run_key,
        model=run.model,
        data=run.data,
        method=run.row,
        scale="free",
        epochs=run.epochs,
        epochs_trained=run.epochs,
    )
    found = synthetic(**fields, compute_seconds=seconds, wall_seconds=seconds + 1)
    (folder / "record.json").write_text(json.dumps(found))
    return 0


def test_the_most_valuable_run_that_fits_comes_first(campaign):
    full, short, long, other = campaign.runs
    assert campaign.next(10) == full, "nothing tells how long it takes"
    finish(campaign, full)
    assert campaign.next(150) == short
    assert campaign.next(150, {short.run_key}) == other, "300 s would not fit"
    assert campaign.next(350, {short.run_key}) == long
    assert campaign.next(50) == short, "nothing fits: the most valuable goes on in the next slice"
    (campaign.root / long.folder).mkdir(parents=True)
    rows = "".join(json.dumps({"epoch": epoch}) + "\n" for epoch in range(1, 26))
    (campaign.root / long.folder / "epochs.jsonl").write_text(rows)
    assert campaign.next(60) == long, "25 of its 30 epochs are done: 50 s are left"


def test_a_slice_ends_in_time_and_its_ledger_tells_everything(campaign):
    now = [0.0]

    def start(run, seconds):
        assert seconds <= 500 - now[0] - GRACE
        needed = 10.0 * run.epochs
        now[0] += min(seconds, needed)
        return 75 if seconds < needed else finish(campaign, run, needed) if run.row != "short" else 1

    assert campaign.work(500, start, clock=lambda: now[0]) == 4
    lines = [json.loads(line) for line in (campaign.home / LEDGER).read_text().splitlines()]
    assert [(line["run_key"][0], line["event"]) for line in lines] == [
        (key, event) for key in "abdc" for event in ("started", "ended")
    ]
    assert [line["exit_code"] for line in lines if line["event"] == "ended"] == [0, 1, 0, 75], (
        "the long one comes last, and only begins"
    )
    assert now[0] == 500 - GRACE and campaign.work(GRACE + 10, start, clock=lambda: now[0]) == 0, (
        "too short a slice starts nothing"
    )


def test_a_failed_run_is_not_tried_again_but_an_interrupted_one_goes_on(campaign):
    full, short, *_ = campaign.runs
    for run, status in ((full, "failed"), (short, "interrupted")):
        finish(campaign, run)
        path = campaign.root / run.folder / "record.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": status, "error": "it broke"}))
    assert campaign.next(1000) == short


def test_a_run_that_waits_for_another_and_one_without_data_are_passed_over(tmp_path):
    waiting = planned(
        "lc", "e" * 12, waits_for="f" * 12, waits_for_label="Cuttlefish", waits_in=f"runs/x/{'f' * 12}"
    )
    campaign = made(tmp_path, [waiting, planned("cuttlefish", "f" * 12)])
    assert campaign.next(100).row == "cuttlefish"
    assert campaign.standing() == "1 missing, 1 waiting for another's size"
    finish(campaign, campaign.runs[1])
    assert campaign.next(100).row == "lc"
    absent = replace(campaign, runs=tuple(replace(run, data_there=False) for run in campaign.runs))
    assert absent.next(100) is None and absent.standing() == "1 data absent, 1 finished"


def test_a_stop_ends_the_slice_with_the_run_under_way_noted(tmp_path):
    campaign = made(tmp_path, [planned("a", "a"), planned("b", "b")])

    def start(run, seconds):
        os.kill(os.getpid(), signal.SIGTERM)
        return 75

    with pytest.raises(Interrupted, match="SIGTERM"):
        campaign.work(1000, start)
    events = [json.loads(line) for line in (campaign.home / LEDGER).read_text().splitlines()]
    assert [(event["event"], event.get("exit_code")) for event in events] == [
        ("started", None),
        ("ended", 75),
    ]


@pytest.mark.slow
def test_trains_for_real_packs_and_imports(tmp_path, capsys):
    """One run ends, one is stopped by the end of its slice and one dies without a record; the archive has them all."""
    home, records = tmp_path / "home", tmp_path / "project" / "results" / "records"
    home.mkdir()
    runs = []
    for name, more in {"done": {}, "stopped": {"recipe__epochs": 4000}}.items():
        config = little_config(home / "runs" / name, **more)
        key = identify(config).key
        config = little_config(home / "runs" / "x" / key, **more)
        runs.append((planned(name, key, epochs=config.recipe.epochs), config))
    runs.append((planned("lost", "0" * 12), little_config(home / "runs" / "x" / ("0" * 12))))
    campaign = made(home, [run for run, _ in runs])
    for run, config in runs:
        (home / CONFIGS / f"{run.run_key}.json").write_text(json.dumps(to_dict(config)))
    (home / "cuttlefish").symlink_to(ROOT / "cuttlefish")
    (home / "baselines").symlink_to(ROOT / "baselines")
    ends = iter([60.0, 40.0])
    codes = []

    def start(run, seconds):
        codes.append(campaign.train(run, next(ends), StopSignals()) if run.row != "lost" else -9)
        return codes[-1]

    assert campaign.work(10_000, start) == 3
    assert codes == [0, 75, -9]
    packed = pack(campaign, tmp_path / "records.tar.gz")
    (tmp_path / "project").mkdir()
    assert command.main(["import", str(packed), "--root", str(tmp_path / "project")]) == 1
    told = capsys.readouterr()
    assert (
        f"{'0' * 12}: not imported: it left no record" in told.err
        and "3 runs started, 1 not imported" in told.out
    )
    statuses = [json.loads(path.read_text())["status"] for path in sorted(records.rglob("record.json"))]
    assert sorted(statuses) == ["finished", "interrupted"]
    assert (
        len((tmp_path / "project" / "results" / "campaigns" / "records.jsonl").read_text().splitlines()) == 6
    )


def rewritten(path, target, change):
    """An archive whose members a stranger has changed, with a checksum list that fits them."""
    with tarfile.open(path) as file:
        members = {entry.name: file.extractfile(entry).read() for entry in file}
    change(members)
    with tarfile.open(target, "w:gz") as file:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return target


def with_index(members):
    members["index.json"] = json.dumps(
        {k: hashlib.sha256(v).hexdigest() for k, v in members.items() if k != "index.json"}
    ).encode()


@pytest.mark.parametrize("change, words", [
    (lambda m: m.update({"../evil": b""}), "holds '../evil', which no campaign packs"),
    (lambda m: m.update({"runs/aaaaaaaaaaaa/model.pt": b""}), "no campaign packs"),
    (lambda m: m.update({f"runs/{'a' * 12}/record.json": b"{}"}), "does not match its checksum"),
    (lambda m: m.pop(f"runs/{'a' * 12}/record.json"), "is missing"),
    (lambda m: m.pop("index.json"), "has no sound index"),
    (lambda m: m.update({"index.json": b"[]"}), "has no sound index"),
    (lambda m: (m.update({f"runs/{'9' * 12}/record.json": b"{}"}), with_index(m)), "its ledger never started"),
    (lambda m: (m.update({"ledger.jsonl": b"{\n"}), with_index(m)), "damaged line"),
])  # fmt: skip
def test_an_archive_that_was_tampered_with_is_refused_and_nothing_is_written(
    campaign, tmp_path, change, words
):
    campaign.work(1000, lambda run, seconds: finish(campaign, run), clock=lambda: 0.0)
    bad = rewritten(pack(campaign, tmp_path / "good.tar.gz"), tmp_path / "bad.tar.gz", change)
    with pytest.raises(CuttlefishError, match=words):
        unpack(bad, tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_truncated_oversized_and_foreign_archives(campaign, tmp_path, monkeypatch):
    campaign.work(1000, lambda run, seconds: finish(campaign, run), clock=lambda: 0.0)
    good = pack(campaign, tmp_path / "good.tar.gz")
    assert len(unpack(good, tmp_path / "into")) == 4
    (tmp_path / "cut.tar.gz").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (tmp_path / "foreign.tar.gz").write_text("hello")
    for name in ("cut", "foreign", "absent"):
        with pytest.raises(CuttlefishError, match="cannot read the archive|is missing|no sound"):
            unpack(tmp_path / f"{name}.tar.gz", tmp_path / "other")
    monkeypatch.setattr(archives, "LARGEST", 100)
    with pytest.raises(CuttlefishError, match="unpacks to more than"):
        unpack(good, tmp_path / "other")


def test_the_registered_order_names_runs_of_the_tables_only(spec, tmp_path):
    for scale in ("paper", "reduced", "smoke"):
        assert read_order(ROOT / "results" / "campaign.yaml", scale).blocks
    block = dict(
        table="table1", rows=["pufferfish", "full_rank"], models=["resnet18"], data=["cifar10"], seeds=[1, 0]
    )
    runs = ordered_runs(
        Order([Block(**block), Block(**block | {"seeds": [0, 2]})], ["trainer.checkpoint_minutes=1"]),
        spec,
        "reduced",
        ROOT,
    )
    assert [(run.seed, run.row) for run in runs] == [
        (s, row) for s in (1, 0, 2) for row in ("pufferfish", "full_rank")
    ]
    assert all(run.words[-1] == "trainer.checkpoint_minutes=1" for run in runs)
    with pytest.raises(CuttlefishError, match="names 0 cifar10 resnet18 puffer of table1, which is no run"):
        ordered_runs(Order([Block(**block | {"rows": ["puffer"], "seeds": [0]})]), spec, "reduced", ROOT)
    (tmp_path / "order.yaml").write_text(
        yaml.safe_dump({"paper": {"blocks": [], "words": ["recipe.epochs=3"]}})
    )
    with pytest.raises(CuttlefishError, match="recipe.epochs=3 would make other runs"):
        read_order(tmp_path / "order.yaml", "paper")
    (tmp_path / "order.yaml").write_text("3")
    with pytest.raises(CuttlefishError, match="must hold a mapping"):
        read_order(tmp_path / "order.yaml", "paper")
    with pytest.raises(CuttlefishError, match="no scale papr"):
        read_order(ROOT / "results" / "campaign.yaml", "papr")


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["paper", "reduced", "smoke"])
def test_every_registered_block_is_made_of_runs(spec, scale):
    assert ordered_runs(read_order(ROOT / "results" / "campaign.yaml", scale), spec, scale, ROOT)
