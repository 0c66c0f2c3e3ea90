"""What the README says of results, files and commands is what is there."""

import csv
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = "ResNet-18 on CIFAR-10, equal budget"


def measured() -> list[dict[str, str]]:
    with (ROOT / "results/tables/reduced/table1.csv").open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["block"].startswith(BLOCK) and row["seeds"]]


def cells(label: str) -> list[str]:
    """The README's row of that method."""
    head = next(
        line for line in README.splitlines() if line.startswith("| ResNet-18, width 16, 10,000 images")
    )
    table = README.partition(head)[2].partition("\n\n")[0]
    rows = [
        [cell.strip(" *") for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    return next(row for row in rows if row[0].lower().startswith(label.lower()))


@pytest.mark.parametrize("row", measured(), ids=lambda row: row["method"])
def test_the_results_are_those_of_the_generated_table(row):
    _, seeds, accuracy, params, nonzero, macs, epoch = cells(row["method"])
    assert (seeds, accuracy.replace(" %", "")) == (row["seeds"], row["accuracy_text"])
    assert params.split(" (")[0] == row["params_total_text"].split(" (")[0]
    assert nonzero == row["params_nonzero_text"].split(" ")[0]
    assert float(macs.removesuffix(" M")) == round(float(row["macs"]) / 1e6, 1)
    assert epoch.split(",")[0] == row["switch_epoch_text"]


def test_every_file_that_it_shows_or_links_is_there():
    named = re.findall(r"\]\(([^)#][^)]*)\)", README) + re.findall(r"\[`([^`]+)`\]", README)
    assert len(named) > 8
    assert [name for name in named if "://" not in name and not (ROOT / name).exists()] == []


def test_every_make_target_that_it_names_exists():
    targets = set(
        re.findall(r"^([a-z0-9 -]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    known = {name for line in targets for name in line.split()}
    named = set(re.findall(r"(?:^|`|    )make ([a-z][a-z0-9-]*)", README, flags=re.MULTILINE))
    assert {"demo", "test", "report"} <= named <= known


def bench(name: str) -> list[dict]:
    (file,) = (ROOT / "results/bench").glob(f"{name}-intel*.json")
    return json.loads(file.read_text(encoding="utf-8"))["rows"]


def table_below(head: str) -> list[list[str]]:
    """The README's rows under that head, without their first cells."""
    lines = README.partition(head)[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")][1:] for line in lines]


def test_step_times_are_those_of_the_bench_rounded_once():
    rows = {(row["model"], row["precision"], row["arm"]): row for row in bench("steps") if row["width"] == 64}
    arms = ("plain loop, dense", "dense", "rank 1/4", "rank 1/8")
    for arm, shown in zip(arms, table_below("| a training step | "), strict=True):
        for place, setting in enumerate(
            (model, precision) for model in ("resnet18", "vgg19") for precision in ("fp32", "bf16")
        ):
            row = rows.get((*setting, arm))
            faster = f" ({row['speedup_over_dense']:.1f}×)" if row and arm.startswith("rank") else ""
            assert shown[place] == (f"{row['step_s']:.2f} s{faster}" if row else ""), (arm, setting)
    matmul = [
        f"{rows[model, 'fp32', arm]['of_fp32_matmul']:.2f}"
        for model in ("resnet18", "vgg19")
        for arm in ("dense", "rank 1/4")
    ]
    assert (
        "at {} (dense) and {} (rank 1/4) of its rate with ResNet-18, {} and {} with\nVGG-19".format(*matmul)
        in README
    )
    assert f"Stable ranks of all 18 layers take {bench('ranks')[0]['ours_s']:.2f} s" in README


def test_steps_of_methods_are_those_of_the_bench_rounded_once():
    rows = [row for row in bench("methods") if row["arm"] != "full_rank"]
    words = [
        f"{row['over_full_rank']:.2f} ({row['lowest_ratio']:.2f}–{row['highest_ratio']:.2f})" for row in rows
    ]
    shown = table_below("| a training step, over full rank's | ")
    assert sorted(cell for row in shown for cell in row) == sorted(words)
