"""`make estimate`: hours by hand, which E is taken, and what is said where nothing is measured."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from cuttlefish.evidence.benches import Bench
from cuttlefish.planning.estimate import Cell, SwitchEpoch, cells
from cuttlefish.planning.spec import read_spec
from cuttlefish.report.paper import PAPER
from scripts.estimate import main
from tests.helpers.runs import CONF

ROWS = [
    {"model": "resnet50", "batch": 256, "precision": "bf16", "arm": "dense", "step_s": 0.1},
    {"model": "resnet50", "batch": 256, "precision": "bf16", "arm": "ranks 1/5 in layer4", "step_s": 0.08},
    {"model": "bert_base", "batch": 32, "precision": "bf16", "arm": "dense", "step_s": 0.02},
]
ROWS = [row | {"samples_per_s": row["batch"] / row["step_s"]} for row in ROWS]
RUN = "resnet50", "imagenet"
CELL = Cell("table2", RUN, *RUN, 90, 1_281_167, SwitchEpoch(30, "given"))


@pytest.fixture(scope="module")
def spec():
    return read_spec(PAPER / "tables.yaml")


def write_bench(results, hardware="NVIDIA H200", time="2026-01-01"):
    (results / "bench").mkdir(parents=True, exist_ok=True)
    content = {"hardware": hardware, "time": time, "rows": ROWS}
    (results / "bench" / f"models-{hardware.lower().replace(' ', '-')}.json").write_text(json.dumps(content))


def test_hours_are_steps_dense_up_to_e_and_low_rank_behind():
    cost = CELL.cost(Bench("models-x.json", {"hardware": "x"}, ROWS), "bf16")
    steps = 1_281_167 / 256
    assert cost.full_rank == pytest.approx(90 * steps * 0.1 / 3600)
    assert cost.cuttlefish == pytest.approx((30 * steps * 0.1 + 60 * steps * 0.08) / 3600)
    assert cost.speedup == pytest.approx(9 / (3 + 6 * 0.8))
    late = replace(CELL, switch=SwitchEpoch(120, "given")).cost(Bench("m", {}, ROWS), "bf16")
    assert late.cuttlefish == late.full_rank
    assert CELL.cost(Bench("m", {}, ROWS), "fp32") is None
    assert CELL.cost(Bench("m", {}, ROWS[1:]), "bf16") is None


def test_e_is_the_runs_own_or_the_least_that_is_possible(spec):
    run = {"scale": "paper", "model": "resnet50", "data": "imagenet"}
    run |= {"method": "cuttlefish", "preset": "reference"}
    others = [run | {"switch_epoch": None}, run | {"switch_epoch": 7, "scale": "free"}]
    finished = [SimpleNamespace(**{**run, "switch_epoch": e}) for e in (20, 23)]
    finished += [SimpleNamespace(**other) for other in others]
    found = {cell.choices: cell for cell in cells(spec, CONF, ["table2", "table4"], finished)}
    assert found["resnet50", "imagenet"].switch == SwitchEpoch(21.5, "mean of 2")
    assert found["wide_resnet50_2", "imagenet"].switch == SwitchEpoch(6, "the least", least=True)
    mrpc = found["bert_base", "glue/mrpc"]
    assert (mrpc.switch, mrpc.epochs, mrpc.samples) == (SwitchEpoch(1, "fixed"), 5, 3668)
    given = next(cells(spec, CONF, ["table3"], [], given=0.25))
    assert given.switch == SwitchEpoch(75, "given") and given.samples == 1_281_167


def test_a_table_for_each_device_and_precision(tmp_path, capsys):
    for hardware in ("NVIDIA H200", "NVIDIA A100"):
        write_bench(tmp_path, hardware)
    words = ["table2", "--results", str(tmp_path), "--devices", "1,4", "--price", "H200=2", "--switch", "0.5"]
    assert main(words) == 0
    told = capsys.readouterr().out
    blocks = [block.splitlines() for block in told.split("## ")[1:]]
    assert [block[0] for block in blocks] == [
        f"NVIDIA {card}, {precision}" for card in ("A100", "H200") for precision in ("bf16", "fp32")
    ]
    row = next(line for line in told.splitlines() if "resnet50 on imagenet" in line and "25.02" in line)
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        "resnet50 on imagenet", "90", "45 (given)", "100 → 80 ms, batch 256", "12.5 → 11.3 (-10.0 %)",
        "12.5 → 11.3", "3.13 → 2.82", "25.02 → 22.52", "1.11×", "1.20×",
    ]  # fmt: skip
    assert "wide_resnet50_2 on imagenet | 90     | 45 (given) | not measured" in told


def test_without_a_bench_every_cell_is_not_measured(tmp_path, capsys):
    assert main(["--results", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "no step time of these networks is measured" in told
    rows = [line for line in told.splitlines() if re.match(r"\| .* on ", line) and "hours" not in line]
    assert len(rows) == 13 and all("not measured" in row for row in rows)


def test_wrong_words_end_in_one_sentence(tmp_path, capsys):
    assert main(["--switch", "2", "--results", str(tmp_path)]) == 2
    assert "--switch is E as a share" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--price", "H200"])
    assert "H200 is no list of prices" in capsys.readouterr().err
