import json
import re
from itertools import product
from pathlib import Path

import pytest
import yaml
from scipy import stats

from cuttlefish.evidence.benches import load_benches
from cuttlefish.evidence.records import load_evidence
from cuttlefish.planning.spec import read_scales, read_spec
from cuttlefish.report.claims.entry import load_claims
from cuttlefish.report.claims.judge import judge
from cuttlefish.report.claims.text import to_markdown
from cuttlefish.report.claims.verdict import Judgement
from cuttlefish.report.paper import PAPER
from scripts.claims import main
from tests.helpers.synthetic_records import CPU, GPU, put

CLAIMS = PAPER / "claims.yaml"


def run(root, *words):
    """The command's exit code, with `root` as the folder of results and of the paper's files."""
    return main([*words, "--results", str(root), "--paper", str(root)])


def claims_of(root, *claims, **scales):
    """The command's verdicts on these claims, as it writes them."""
    (root / "claims.yaml").write_text(yaml.safe_dump(list(claims)))
    (root / "tables.yaml").write_text(yaml.safe_dump({"scales": {"paper": {}, "reduced": {}} | scales}))
    assert run(root) == 0
    return json.loads((root / "claims.json").read_text())["claims"]


SIZE = {
    "id": "size",
    "what": "full-rank over Cuttlefish parameters",
    "source": "P 4.2",
    "reach": "here",
    "value": 2.5,
    "accept": [2.0, 3.0],
    "reduced": "above 1",
    "seeds": {"paper": 3, "reduced": 5},
    "run": {"paper": "python run.py"},
    "rule": {
        "name": "mean_over_seeds",
        "where": {"model": "resnet18", "method": "cuttlefish"},
        "of": "params_full",
        "over": "params_total",
        "reduced": {"accept": {"above": 1}},
    },
}


def verdict_of(tmp_path, claim, *others):
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump([claim, *others]))
    found = judge(
        load_evidence(tmp_path / "records"),
        load_benches(tmp_path / "bench"),
        load_claims(tmp_path / "claims.yaml"),
    )
    return next(verdict for verdict in found if verdict.id == claim["id"])


@pytest.mark.parametrize(
    "sizes, outcome",
    [
        ([400, 405, 398], Judgement.REPRODUCED),
        ([200, 202, 199], Judgement.NOT_REPRODUCED),
        ([300, 400, 500], Judgement.INCONCLUSIVE),
        ([400, 401], Judgement.INCONCLUSIVE),
        ([], Judgement.NOT_RUN),
    ],
)
def test_the_paper_scale_verdict_is_where_the_interval_lies(tmp_path, sizes, outcome):
    for seed, size in enumerate(sizes):
        put(tmp_path, seed=seed, params_total=size, params_trainable=size, scale="paper")
    found = verdict_of(tmp_path, SIZE)
    assert found.verdict is outcome and found.reduced_verdict is Judgement.NOT_RUN
    if len(sizes) > 2:
        ratios = [1000 / size for size in sizes]
        assert found.paper.interval == pytest.approx(
            stats.t.interval(0.95, 2, loc=sum(ratios) / 3, scale=stats.sem(ratios))
        )
        assert found.paper.ours == pytest.approx(sum(ratios) / 3)
        assert found.paper.n == 3
        assert len(found.paper.runs) == 3


@pytest.mark.parametrize(
    "sizes, outcome",
    [
        ([400, 410, 390, 400, 405], Judgement.HOLDS),
        ([1100, 1105, 1110, 1100, 1099], Judgement.FAILS),
        ([900, 1300, 990, 1010, 950], Judgement.INCONCLUSIVE),
        ([400, 410, 390, 400], Judgement.INCONCLUSIVE),
    ],
)
def test_the_reduced_verdict_has_words_of_its_own(tmp_path, sizes, outcome):
    for seed, size in enumerate(sizes):
        put(tmp_path, seed=seed, params_total=size, params_trainable=size)
    found = verdict_of(tmp_path, SIZE)
    assert found.reduced_verdict is outcome and found.verdict is Judgement.NOT_RUN
    assert found.reduced.hardware == [f"{CPU} · fp32 · 2 threads"]


def test_of_repeats_of_a_seed_the_first_started_counts(tmp_path):
    for repeat in (2, 0, 3, 1):
        started = f"2026-01-0{repeat + 1}T00:00:00+00:00"
        put(tmp_path, seed=0, params_total=400 + repeat, scale="paper", started=started)
    found = verdict_of(tmp_path, SIZE).paper
    assert found.n == 1 and found.ours == 1000 / 400 and len(found.runs) == 1


@pytest.mark.parametrize(
    "odd", [{"knobs": {"ratio": 0.5}}, {"precision": "bf16"}, {"setting": {"trainer": {"compile": True}}}]
)
def test_runs_of_two_settings_are_not_averaged(tmp_path, odd):
    usual = {"knobs": {"ratio": 0.25}}
    for seed, changes in enumerate((usual, usual, usual | odd)):
        put(tmp_path, seed=seed, scale="paper", **changes)
    found = verdict_of(tmp_path, SIZE)
    assert found.verdict is Judgement.NOT_RUN
    assert "2 settings" in found.paper.notes[0]


@pytest.mark.parametrize("scale", ["paper", "reduced"])
@pytest.mark.parametrize(
    "section, odd",
    [
        ("model", {"width": 32}),
        ("data", {"images_per_class": 100}),
        ("recipe", {"epochs": 2}),
        ("recipe", {"batch_size": 64}),
        ("trainer", {"max_steps": 5}),
        ("trainer", {"max_eval_batches": 1}),
        ("trainer", {"overfit": True}),
    ],
)
def test_a_label_alone_makes_no_run_count(tmp_path, capsys, scale, section, odd):
    for seed in range(3):
        put(tmp_path, seed=seed, scale=scale, setting={section: odd})
    found = verdict_of(tmp_path, SIZE)
    assert found.verdict is found.reduced_verdict is Judgement.NOT_RUN
    assert run(tmp_path) == 0
    assert f"{section}.{next(iter(odd))}=" in capsys.readouterr().out


def test_runs_of_other_scales_do_not_count(tmp_path):
    for seed in range(3):
        put(tmp_path, seed=seed, scale="free")
    assert verdict_of(tmp_path, SIZE).verdict is Judgement.NOT_RUN


TIME = SIZE | {
    "id": "time",
    "reach": "fp32",
    "value": 1.2,
    "accept": [1.1, 1.3],
    "rule": {
        "name": "paired_quotient",
        "left": {"method": "full_rank"},
        "right": {"method": "cuttlefish"},
        "of": "compute_seconds",
        "alike": ["hardware"],
        "reduced": {"accept": {"above": 1}},
    },
}


def put_times(root, device, scale="paper", **changes):
    for seed, (method, seconds) in product(range(5), (("full_rank", 120.0), ("cuttlefish", 100.0))):
        times = {"compute_seconds": seconds + seed, "wall_seconds": 200.0}
        put(root, method, seed, device=device, scale=scale, **times, **changes)


@pytest.mark.parametrize(
    "device, changes, outcome",
    [
        (GPU, {}, Judgement.REPRODUCED),
        (CPU, {}, Judgement.OTHER_HARDWARE),
        (GPU, {"precision": "bf16"}, Judgement.OTHER_HARDWARE),
        (GPU, {"world_size": 2}, Judgement.OTHER_HARDWARE),
    ],
)
def test_times_count_on_one_gpu_in_fp32_only(tmp_path, device, changes, outcome):
    put_times(tmp_path, device, **changes)
    found = verdict_of(tmp_path, TIME)
    assert found.verdict is outcome
    assert found.paper.ours == pytest.approx(1.196, abs=1e-3)
    assert len(found.paper.hardware) == 1


def test_times_that_are_no_evidence_are_shown_and_not_judged(tmp_path):
    put_times(tmp_path, CPU, "reduced")
    time, size = claims_of(tmp_path, TIME, SIZE, reduced={"times": "no evidence of speed."})
    assert time["reduced"]["verdict"] == "inconclusive"
    assert time["reduced"]["ours"] == pytest.approx(1.196, abs=1e-3)
    assert time["reduced"]["notes"] == ["no evidence of speed"]
    assert size["reduced"]["verdict"] == "holds at reduced scale"
    (tmp_path / "tables.yaml").unlink()
    assert run(tmp_path) == 0
    time, _ = json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert time["reduced"]["verdict"] == "holds at reduced scale"


def test_times_of_two_machines_are_never_compared(tmp_path):
    put(tmp_path, "full_rank", 0, device=GPU, scale="paper")
    put(tmp_path, "cuttlefish", 0, device="another GPU", scale="paper")
    found = verdict_of(tmp_path, TIME)
    assert found.verdict is Judgement.NOT_RUN and found.paper.notes == ["the two arms have no seed in common"]


def test_absolute_claims_are_shown_and_imagenets_lack_data(tmp_path):
    put_times(tmp_path, GPU)
    assert verdict_of(tmp_path, TIME | {"reach": "absolute"}).verdict is Judgement.SHOWN
    rule = TIME["rule"] | {"left": {"data": "imagenet", "method": "full_rank"}}
    of_imagenet = TIME | {"reach": "imagenet", "rule": rule}
    assert verdict_of(tmp_path, of_imagenet).verdict is Judgement.DATA_ABSENT
    at_one_scale = {key: value for key, value in TIME.items() if key != "reduced"}
    assert verdict_of(tmp_path, at_one_scale).reduced_verdict is Judgement.NO_READING


def test_data_that_a_scale_does_not_run_has_no_reading_there(tmp_path):
    rule = SIZE["rule"]
    for data, outcome in (
        (["cifar100"], "no reading"),
        (["cifar100", "cifar10"], "not run"),
        (["cifar10"], "not run"),
    ):
        rules = [rule | {"where": {"data": name, "method": "cuttlefish"}} for name in data]
        (found,) = claims_of(tmp_path, SIZE | {"rule": rules}, reduced={"sweep": {"data": ["cifar10"]}})
        assert found["reduced"]["verdict"] == outcome
        assert found["paper"]["verdict"] == "not run"
        text = (tmp_path / "claims.md").read_text()
        assert ("the reduced scale has no cifar100" in text) == ("cifar100" in data)
        assert ("so this can fail there but not hold" in text) == (len(data) == 2)


def test_a_largest_value_below_another_contradicts_the_paper(tmp_path):
    other = SIZE | {"id": "one", "value": 10.8, "accept": [9.2, 12.4]}
    largest = SIZE | {"largest_of": ["one"]}
    overlapping = other | {"value": 2.9, "accept": [2.5, 3.2]}
    assert verdict_of(tmp_path, largest, other).verdict is Judgement.CONTRADICTED
    assert verdict_of(tmp_path, largest, overlapping).verdict is Judgement.NOT_RUN


def test_several_rules_must_all_hold_and_none_be_missing(tmp_path):
    for seed in range(3):
        put(tmp_path, seed=seed, scale="paper", accuracy_final=76.0 + seed / 10)
    size = SIZE["rule"]
    accuracy = size | {"of": "accuracy_final", "over": "epochs", "times": 10, "accept": {"at_least": 2}}
    for second, outcome in (
        (accuracy, Judgement.REPRODUCED),
        (accuracy | {"accept": {"above": 3}}, Judgement.NOT_REPRODUCED),
        (size | {"where": {"method": "xnor"}}, Judgement.INCONCLUSIVE),
    ):
        found = verdict_of(tmp_path, SIZE | {"rule": [size, second]})
        assert found.verdict is outcome
        assert "n = 3, one of 2 parts |" in to_markdown([found], "")


def refused(root, capsys, claims="", tables=None):
    """What the command says of files that it cannot use, in one sentence."""
    (root / "claims.yaml").write_text(claims if isinstance(claims, str) else yaml.safe_dump([claims]))
    if tables is not None:
        (root / "tables.yaml").write_text(tables)
    assert run(root) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    "text, words",
    [
        ("{}", "should be a list"),
        ("- {id: a}", "a.what must be given"),
        (": [", "not valid YAML"),
        (yaml.safe_dump([SIZE, SIZE]), "several claims size"),
        ("- 3", "a claim must be a mapping, not 3"),
    ],
)
def test_a_bad_file_ends_in_one_sentence(tmp_path, capsys, text, words):
    assert words in refused(tmp_path, capsys, text)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"reach": "moon"}, "'moon'"),
        ({"seeds": 3}, "size.seeds must be a mapping, not 3"),
        ({"accept": [9.2]}, "size.accept must be a list of 2, not [9.2]"),
        ({"value": "much"}, "size.value must be a number or null, not 'much'"),
        ({"rule": 3}, "size.rule must be"),
        ({"run": "make"}, "size.run must be"),
        ({"acept": [1, 2]}, "did you mean"),
        ({"reach": ["here"]}, "size.reach must be one of here"),
        ({"largest_of": ["no"]}, "size is the largest of claims, of which no has no value"),
    ],
)
def test_a_bad_claim_ends_in_one_sentence(tmp_path, capsys, change, words):
    assert words in refused(tmp_path, capsys, SIZE | change)


@pytest.mark.parametrize(
    "scales, words",
    [
        ("3", "tables.yaml.scales must be a mapping, not 3"),
        ("{reduced: 3}", "tables.yaml.scales.reduced must be a mapping, not 3"),
        ("{reduced: {sweep: 3}}", "tables.yaml.scales.reduced.sweep must be a mapping, not 3"),
        ("{reduced: {tiems: no}}", "did you mean"),
    ],
)
def test_scales_that_are_none_end_in_one_sentence(tmp_path, capsys, scales, words):
    assert words in refused(tmp_path, capsys, SIZE, f"scales: {scales}\n")


@pytest.mark.parametrize(
    "claim, change, words",
    [
        (TIME, {"alik": ["hardware"]}, "unexpected keyword argument 'alik'"),
        (TIME, {"same": 3}, "same of paired_quotient must"),
        (SIZE, {"name": "mean_over_seed"}, "did you mean mean_over_seeds"),
        (SIZE, {"off": 1}, "unexpected keyword argument 'off'"),
        (SIZE, {"where": 3}, "size: where of mean_over_seeds must be a mapping, not 3"),
        (SIZE, {"of": ["a"]}, "size: of of mean_over_seeds must be a string"),
        (SIZE, {"accept": 3}, "3 is not a range"),
        (SIZE, {"accept": {"at_least": "x"}}, "is not a range"),
        (SIZE, {"accept": {"within": [1]}}, "is not a range"),
    ],
)
def test_a_mistyped_rule_ends_in_one_sentence(tmp_path, capsys, claim, change, words):
    assert words in refused(tmp_path, capsys, claim | {"rule": claim["rule"] | change})


def test_our_claims_are_judged_without_any_evidence(tmp_path):
    claims = load_claims(CLAIMS)
    found = judge(load_evidence(tmp_path), [], claims, read_scales(CLAIMS.with_name("tables.yaml")))
    assert [verdict.id for verdict in found] == [entry["id"] for entry in claims] and len(found) == 38
    shown = {verdict.verdict for verdict in found}
    assert shown == {Judgement.NOT_RUN, Judgement.DATA_ABSENT, Judgement.CONTRADICTED}
    assert [verdict.id for verdict in found if verdict.verdict is Judgement.CONTRADICTED] == ["size-max"]
    assert all(verdict.reduced.command for verdict in found if verdict.reduced_verdict is Judgement.NOT_RUN)
    assert all(verdict.paper.command for verdict in found if verdict.verdict is Judgement.NOT_RUN)


def test_the_command_writes_what_it_prints(tmp_path, capsys):
    (tmp_path / "claims.yaml").write_text(CLAIMS.read_text())
    put(tmp_path, seed=0)
    assert run(tmp_path) == 0
    out = capsys.readouterr().out
    content = json.loads((tmp_path / "claims.json").read_text())
    text = (tmp_path / "claims.md").read_text()
    for claim in content["claims"]:
        assert claim["id"] in out and f"### {claim['id']}" in text and claim["paper"]["verdict"] in text
    assert content["accepted_ranges_fixed_by"] == ""  # no repository there


def test_arms_that_need_ranks_take_them_from_the_finished_run(tmp_path, capsys):
    (tmp_path / "claims.yaml").write_text(CLAIMS.read_text())
    of_a_worker = {"seed": 3, "command": "python -m cuttlefish.worker .../a.json"}
    put(tmp_path, **of_a_worker)
    put(tmp_path, **of_a_worker, started="2026-01-02T00:00:00+00:00")  # a repeat
    assert run(tmp_path, "arms", "e-matters") == 0
    lines = capsys.readouterr().out.splitlines()
    ranks = "'method.ranks={layer2.0.conv1:16,layer3.0.conv1:16}'"
    start = "python run.py experiment=reduced/resnet18_cuttlefish seed=3"  # not as the worker was started
    assert lines == [f"{start} method.switch_epoch={epoch} {ranks}" for epoch in (0, 12)]
    assert run(tmp_path, "arms", "e-matters", "--scale", "paper") == 2
    assert "first run python run.py experiment=table1 method=cuttlefish" in capsys.readouterr().err
    assert run(tmp_path, "arms", "frontier") == 2
    assert run(tmp_path, "arms", "nothing") == 2


def test_the_commands_name_experiments_and_scripts_that_exist():
    root = Path(__file__).resolve().parents[3]
    commands = " ".join(
        command for entry in load_claims(CLAIMS) for command in (entry.get("run") or {}).values()
    )
    experiments = set(re.findall(r"experiment=(\S+)", commands))
    modules = set(re.findall(r" -m (\S+\.\S+)", commands))
    assert experiments >= {"reduced/cell", "table1"}
    assert modules >= {"scripts.bench", "scripts.claims", "scripts.profile_layers"}
    assert all((root / "conf" / "experiment" / f"{name}.yaml").is_file() for name in experiments)
    assert all((root / f"{name.replace('.', '/')}.py").is_file() for name in modules)


def test_the_frontiers_grid_is_that_of_figure_1():
    figure = read_spec(CLAIMS.with_name("tables.yaml")).table("figure1")
    rows = [figure.row(name).sweep for name in ("fixed", "from_scratch")]
    (rule,) = [entry["rule"] for entry in load_claims(CLAIMS) if entry["id"] == "frontier"]
    swept = [
        {path.removeprefix("config."): values for path, values in family.items() if isinstance(values, list)}
        for family in rule["grid"]
    ]
    assert swept == [{}, *rows]


def test_no_reduced_command_promises_runs_that_cannot_be():
    """scale=reduced means CIFAR-10 (cuttlefish/config/checks.py)."""

    def data_of(rule):
        inner = rule.values() if isinstance(rule, dict) else rule if isinstance(rule, list) else []
        data = rule.get("data") if isinstance(rule, dict) else None
        own = data.get("reduced") if isinstance(data, dict) else data
        return ({own} if own else set()).union(*map(data_of, inner))

    commanded = [entry for entry in load_claims(CLAIMS) if "reduced" in (entry.get("run") or {})]
    wanted = {entry["id"]: data_of(entry.get("reduced_rule", entry["rule"])) for entry in commanded}
    assert len(wanted) > 10
    assert [name for name, data in wanted.items() if data and "cifar10" not in data] == []
