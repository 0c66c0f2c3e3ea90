"""The report tells of every run that a campaign started, whatever became of it."""

import json
from dataclasses import replace

import pytest

from cuttlefish.evidence.records import Collection
from cuttlefish.plan.campaign import Campaign
from cuttlefish.report.page.site import Report, write_site
from cuttlefish.report.tables.campaigns import NO_END, campaigns_table
from tests.report.planned_runs import ran

DAY = "2026-01-01T00:{:02d}:00+00:00"


def entry(event, minute, key="a" * 12, **more):
    more = {"exit_code": 0, "seconds": 60.0} | more if event == "ended" else more
    return json.dumps(
        {
            "event": event,
            "time": DAY.format(minute),
            "run_key": key,
            "run": f"Full rank · {key[0]}",
            "folder": "runs/x",
        }
        | more
    )


def ledger(root, *lines, name="records-1"):
    folder = root / "campaigns"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def rows(table):
    return [[cell.text for cell in row] for _, row in table.rows]


def test_a_row_a_start_with_its_end_minutes_and_hardware(tmp_path):
    folder = ledger(
        tmp_path, entry("started", 0), entry("ended", 9, exit_code=75, seconds=540), entry("started", 10), entry("started", 12),
        entry("ended", 20, seconds=480.0), entry("started", 21, "b" * 12), entry("ended", 22, "b" * 12, exit_code=-9), entry("started", 23, "c" * 12),
    )  # fmt: skip
    run = ran("full", run_key="a" * 12, started="2026-01-01T00:00:05+00:00")
    earlier = ran("full", run_key="a" * 12, started="2025-01-01T00:00:00+00:00", device="another machine")
    table, damaged = campaigns_table(folder, [earlier, run])
    assert damaged == [] and [row[3:5] for row in rows(table)] == [
        ["stopped, its state saved", "9.0"], [NO_END, "–"], ["came to its end", "8.0"], ["killed by signal 9", "1.0"], [NO_END, "–"],
    ]  # fmt: skip
    assert [row[5] for row in rows(table)] == [run.hardware] * 3 + ["–"] * 2
    assert rows(table)[0][:3] == [
        "Full rank · a",
        "2026-01-01 00:00:00",
        "2026-01-01 00:09:00",
    ] and table.blocks[0].rows[0][0].runs == ("a" * 12,)


def test_a_later_ledger_of_the_campaign_repeats_nothing(tmp_path):
    ledger(tmp_path, entry("started", 0))
    folder = ledger(tmp_path, entry("started", 0), entry("ended", 1), entry("started", 2), name="records-2")
    ledger(tmp_path, entry("started", 0), name="records-3")
    assert [row[3] for row in rows(campaigns_table(folder, [])[0])] == ["came to its end", NO_END]


@pytest.mark.parametrize("line", [
    "{", "[]", '"started"', entry("ended", 1, exit_code="x"), entry("started", 1, run_key=3), entry("ended", 1, seconds=None),
    entry("ended", 1, seconds="long"), entry("ended", 1, seconds=10**400), entry("ended", 1, seconds=float("nan")),
])  # fmt: skip
def test_lines_that_are_no_entries_are_told(tmp_path, line):
    folder = ledger(tmp_path, entry("started", 0), line)
    table, (damaged,) = campaigns_table(folder, [])
    assert (
        len(rows(table)) == 1 and damaged.reason == "a ledger: 1 of 2 lines are no entries and are left out"
    )


def test_a_start_may_say_more_and_a_ledger_that_cannot_be_read_is_told(tmp_path):
    folder = ledger(tmp_path, entry("started", 0, seconds="unknown"))
    (folder / "records-0.jsonl").mkdir()
    table, damaged = campaigns_table(folder, [])
    assert len(rows(table)) == 1 and [item.reason for item in damaged] == [
        "a ledger that cannot be read: Is a directory"
    ]


def test_what_a_campaign_writes_is_read(tmp_path, monkeypatch):
    from tests.plan.test_campaign import made, planned

    monkeypatch.setattr(Campaign, "evidence", lambda self: Collection([], []))
    campaign = made(tmp_path, [planned("full_rank", "a" * 12)])
    campaign.work(100, lambda run, seconds: 1)
    (tmp_path / "ledger.jsonl").rename(ledger(tmp_path) / "records-2.jsonl")
    table, damaged = campaigns_table(tmp_path / "campaigns", [])
    assert (
        rows(table)[0][0] == "full_rank · resnet18 · synthetic · seed 0"
        and rows(table)[0][3] == "failed with code 1"
        and damaged == []
    )


def test_the_page_has_a_section_of_what_was_started_and_none_without(tmp_path):
    report = Report(tmp_path, Collection([], []))
    assert 'id="campaigns"' not in write_site(report, tmp_path / "out").read_text()
    folder = ledger(tmp_path, entry("started", 0, run="<script>"), entry("ended", 1))
    text = write_site(replace(report, campaigns=campaigns_table(folder, [])[0]), tmp_path / "out").read_text()
    assert (
        'id="campaigns"' in text
        and 'href="#campaigns"' in text
        and "came to its end" in text
        and "&lt;script&gt;" in text
    )
    assert campaigns_table(tmp_path / "nowhere", []) == (None, [])
