from dataclasses import replace

import pytest

from cuttlefish.evidence.agreement import bitwise, differences, first_unlike_epoch, unlike
from tests.helpers.many_records import made_up_record


def deterministic(**changes):
    record = made_up_record(1)
    record.config["trainer"] = record.config["trainer"] | {"deterministic": True}
    return replace(record, **changes)


@pytest.mark.parametrize("changes, expected", [
    ({}, True), ({"device": "another CPU, 1 core"}, False), ({"device": "NVIDIA H100"}, False),
    ({"threads": 2}, False),
    ({"precision": "bf16"}, False), ({"packages": {"torch": "3"}}, False), ({"world_size": 2}, False),
    ({"git_commit": "x"}, True),
])  # fmt: skip
def test_when_the_same_bits_are_promised(changes, expected):
    assert bitwise(deterministic(), deterministic(**changes)) is expected
    assert bitwise(made_up_record(1), made_up_record(1)) is False, "not asked for"


def test_what_differs_of_hardware_and_software():
    other = made_up_record(1, device="B", packages={"torch": "3", "numpy": "1"}, threads=None)
    found = unlike(made_up_record(1), other)
    assert found == ["device a CPU, 1 core -> B", "threads 1 -> –", "numpy – -> 1", "torch 2 -> 3"]
    assert unlike(other, other) == []


def outside(exact=False, **changes):
    return [
        item.name.split(" ")[0]
        for item in differences(made_up_record(1), made_up_record(1, **changes), exact)
        if not item.within
    ]


@pytest.mark.parametrize("changes, tolerant, exact", [
    ({}, [], []),
    ({"accuracy_final": 71.5}, [], ["accuracy_final"]),
    ({"accuracy_final": 71.6}, ["accuracy_final"], ["accuracy_final"]),
    ({"loss_final": 0.69}, [], ["loss_final"]),
    ({"loss_final": 0.8}, ["loss_final"], ["loss_final"]),
    ({"switch_epoch": 16}, [], ["switch_epoch"]),
    ({"switch_epoch": 17}, ["switch_epoch"], ["switch_epoch"]),
    ({"switch_epoch": None}, ["switch_epoch"], ["switch_epoch"]),
    ({"k": 4}, ["k"], ["k"]),
    ({"params_total": 240000}, [], ["params_total"]),
    ({"ranks": {f"layer{i}": 6 + i for i in range(12)}}, [], ["ranks"]),
    ({"ranks": {f"layer{i}": 4 + i + 3 * (i == 7) for i in range(12)}}, ["ranks"], ["ranks"]),
    ({"ranks": {"layer0": 4}}, ["ranks"], ["ranks"]),
    ({"ranks": None}, ["ranks"], ["ranks"]),
])  # fmt: skip
def test_tolerances(changes, tolerant, exact):
    assert outside(**changes) == tolerant and outside(True, **changes) == exact


def test_the_first_epoch_that_differs_apart_from_clocks():
    rows = [{"epoch": 1, "loss": 0.1, "seconds": {"train": 1}}, {"epoch": 2, "loss": 0.2, "wall_seconds": 3}]
    assert first_unlike_epoch(rows, [row | {"seconds": 9, "wall_seconds": 9} for row in rows]) is None
    assert first_unlike_epoch(rows, [rows[0], rows[1] | {"loss": 0.2000001}]) == 2
    assert first_unlike_epoch(rows, rows[:1]) == 2 and first_unlike_epoch([], []) is None
