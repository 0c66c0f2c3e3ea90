"""What a claim's runs and benches take: worked out by hand, and its commands against the runs that its rule
asks for."""

import shlex
from math import prod
from pathlib import Path

import pytest

from cuttlefish.display.format import memory
from cuttlefish.evidence.benches import Bench, load_benches
from cuttlefish.evidence.records import load_evidence
from cuttlefish.planning.lengths import lengths
from cuttlefish.planning.points import points
from cuttlefish.planning.spec import read_scales, read_spec
from cuttlefish.report.claims.bench_cost import bench_costs
from cuttlefish.report.claims.cost import COPIES, FILES, Costs, arms_of
from cuttlefish.report.claims.entry import load_claims
from cuttlefish.report.claims.judge import judge
from cuttlefish.report.paper import PAPER
from tests.helpers.synthetic_records import CPU, put

ROOT = Path(__file__).resolve().parents[3]
CLAIMS = load_claims(PAPER / "claims.yaml")
SCALES = read_scales(PAPER / "tables.yaml")
RULE = {
    "name": "mean_over_seeds",
    "where": {"model": "resnet18", "data": "cifar10", "method": "cuttlefish"},
    "of": "params_total",
}
DENSE = {"model": "resnet18", "width": 64, "batch": 100, "precision": "fp32", "arm": "dense"}
STEPS = Bench("steps-x.json", {"hardware": CPU}, [{**DENSE, "step_s": 0.36, "rounds_s": [100.0, 20.0]}])


def cost(root, rule=RULE, scale="reduced", benches=(), command="", claims=()):
    costs = Costs(load_evidence(root / "records").runs, list(benches), claims, SCALES)
    return costs.of(rule, scale, 5, command)


def test_runs_cost_what_their_like_took_to_the_epoch(tmp_path):
    put(tmp_path, seed=0, wall_seconds=3000.0)
    put(tmp_path, seed=1, wall_seconds=5000.0)
    put(tmp_path, seed=2, wall_seconds=9000.0)
    put(tmp_path, "full_rank", wall_seconds=36000.0)
    room = memory(5 * (1000 * 4 * COPIES + FILES))
    told = (
        f"5 runs in all (2 missing), about 7 h on {CPU}, going by 3 finished runs of resnet18; about {room}"
    )
    assert cost(tmp_path) == f"{told} of disk"
    # no LC here: as all of the network, for 1,135 epochs
    other = {**RULE, "where": {**RULE["where"], "method": "lc", "preset": "reference"}}
    epoch = (5000 + 9000) / 2 / 30
    assert cost(tmp_path, other).startswith(
        f"5 runs, about {5 * 1135 * epoch / 3600:,.0f} h on {CPU}, going by 4 finished runs"
    )


def test_a_network_that_never_ran_is_not_estimated_from_another(tmp_path):
    put(tmp_path)
    model = {"paper": "deit_base_patch16_224", "reduced": "deit_tiny_patch16_224"}
    data = {"paper": "imagenet", "reduced": "cifar10"}
    rule = {**RULE, "where": {"model": model, "data": data, "method": "full_rank"}}
    stated = [{"id": "readme-compute", "value": 3000.0}]  # ResNet-18 on CIFAR-10: no ImageNet epoch
    untimed = "epochs not yet timed here"
    assert cost(tmp_path, rule) == f"5 runs, 150 {untimed}"
    assert cost(tmp_path, rule, "paper", claims=stated) == f"5 runs, 1,500 {untimed}"


def test_a_grid_costs_its_points(tmp_path):
    grid = {
        "name": "frontier",
        "ours": RULE["where"],
        "grid": [{**RULE["where"], "method": "pufferfish", "config.method.rank_ratio": [0.125, 0.25]}],
    }
    assert cost(tmp_path, grid) == "15 runs, 450 epochs not yet timed here"


def test_at_paper_scale_stated_and_measured_times_stand_in(tmp_path):
    put(tmp_path)  # of another scale
    stated = [{"id": "readme-compute", "value": 3000.0}]
    assert cost(tmp_path, scale="paper", benches=[STEPS], claims=stated) == (
        "5 runs, 1,500 epochs not yet timed here: about 4 h on the paper's GPU "
        "(10.0 s an epoch of ResNet-18, by its README) "
        "or 75 h on a CPU, 2 cores (every step as a dense one of steps-x.json)"
    )


@pytest.mark.parametrize(
    "command, told",
    [
        (
            "python -m scripts.bench steps ranks && python run.py -m seed=0",
            [
                "bench of steps: at least 2 min on a CPU, 2 cores, under 1 MiB of disk",
                "bench of ranks: not timed, under 1 MiB of disk",
            ],
        ),
        (
            "python -m scripts.bench overhead",
            ["bench of overhead: about 40 s on a CPU, 2 cores, under 1 MiB of disk"],
        ),
        (
            "python -m scripts.profile_layers stacks --model vgg19 --device cuda --batch 1024",
            [
                "profile of vgg19: not timed on a GPU; about 3 min on a CPU, 2 cores, batch 128, "
                "under 1 MiB of disk"
            ],
        ),
        (
            "python -m scripts.profile_layers layers --model vgg19",
            ["profile of vgg19: not timed, under 1 MiB of disk"],
        ),
        ("python run.py seed=0  # one GPU", []),
    ],
)
def test_a_bench_costs_what_it_took_when_it_was_last_made(command, told):
    overhead = Bench("overhead-x.json", {"hardware": CPU, "seconds": 40.0}, [])
    profiled = {"profiled": "stacks", "model": "vgg19", "batch": 128}
    profile = Bench("profile-x.json", {"hardware": CPU, "seconds": 200.0, **profiled}, [])
    assert bench_costs(command, [STEPS, overhead, profile]) == told


def test_every_decidable_claim_says_how_and_at_what_cost():
    """With the committed evidence: a command, device time with its source, and disk."""
    evidence, benches = load_evidence(ROOT / "results/records"), load_benches(ROOT / "results/bench")
    open_ones = [
        verdict for verdict in judge(evidence, benches, CLAIMS, scales=SCALES) if verdict.reach != "imagenet"
    ]
    readings = [
        reading for verdict in open_ones for reading in (verdict.paper, verdict.reduced) if reading.command
    ]
    assert len(open_ones) == 30
    assert all(verdict.paper.command for verdict in open_ones)
    assert len(readings) > 45
    uncosted = [one.command for one in readings if not (" of disk" in one.cost and " on " in one.cost)]
    assert uncosted == []


def asked_of(scale):
    return [(entry, entry["run"][scale]) for entry in CLAIMS if scale in (entry.get("run") or {})]


@pytest.mark.parametrize("scale", ["paper", "reduced"])
def test_commands_make_the_runs_that_are_counted_and_no_others(scale):
    spec = read_spec(PAPER / "tables.yaml")
    for entry, command in asked_of(scale):
        rule = entry.get("reduced_rule", entry["rule"]) if scale == "reduced" else entry["rule"]
        arms = {repr(arm) for arm in arms_of(rule) if not SCALES[scale].left_out(arm)}
        assert made(spec, command, scale) == len(arms) * entry["seeds"][scale], (entry["id"], command)


def made(spec, command, scale):
    """How many runs a command makes."""
    return sum(_made(spec, shlex.split(part.split("#")[0]), scale) for part in command.split(" && "))


def _made(spec, words, scale):
    values = {key: value.split(",") for key, _, value in (word.partition("=") for word in words) if value}
    if "run.py" in words:
        return prod(map(len, values.values()))
    if "arms" in words:  # two a seed
        return 2 * (9 if scale == "paper" else 5)
    table = next((word for word in words if word.startswith(("table", "figure"))), None)
    if table is None:
        return 0
    seeds = values.get("SEEDS") or words[words.index("--seeds") + 1].split(",")
    found = [
        {**dict(point.values), "row": point.row.name} for point in points(spec, spec.table(table), scale)
    ]
    picked = [
        point
        for point in found
        if all(point[key] in values.get(key, [point[key]]) for key in ("row", "model", "data"))
    ]
    return len(seeds) * len(picked)


@pytest.mark.parametrize(
    "run, paper, reduced",
    [
        ({"model": "resnet18", "method": "lc", "preset": "reference"}, 1135, 1135),
        ({"model": "vgg19", "method": "lc", "preset": "reference"}, 1485, 1485),
        (
            {"model": "vgg19", "method": "lc", "preset": {"paper": "reference", "reduced": "default"}},
            1485,
            30,
        ),
        ({"model": "resnet18", "method": "imp", "preset": "reference"}, 1392, 1392),
        ({"model": "vgg19", "method": "imp", "preset": ["default", "reference"]}, 1392, 246),
        ({"model": "resnet18", "method": "imp", "preset": "default"}, 2652, 246),
        ({"model": "resnet18", "method": "cuttlefish", "preset": "paper"}, 300, 30),
        ({"model": "vgg19", "method": "full_rank", "data": "svhn"}, 200, 30),
        ({"model": "resnet50", "method": "full_rank", "data": "imagenet"}, 90, 30),
        ({"model": "deit_base_patch16_224", "method": "full_rank", "data": "imagenet"}, 300, 30),
    ],
)
def test_runs_are_as_long_as_their_methods_plan(run, paper, reduced):
    for scale, epochs in (("paper", paper), ("reduced", reduced)):
        assert lengths([{"data": "cifar10", **run}], scale, SCALES) == [epochs]
