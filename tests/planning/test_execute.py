from dataclasses import replace

import pytest
from test_state import put, wanted

from cuttlefish.evidence.benches import Bench
from cuttlefish.evidence.records import Collection
from cuttlefish.planning.cost import Estimates
from cuttlefish.planning.execute import by_front_door, execute, exit_code_of, in_order_of_value
from cuttlefish.planning.listing import run_list
from cuttlefish.planning.spec import OrderBlock
from cuttlefish.planning.state import Known, State
from cuttlefish.planning.time_limit import GRACE, TimeLimit
from tests.helpers.planned_runs import ran

FULL = wanted(row="full", run_key="f", folder="runs/x/f", baseline=True, epochs=30)
FOR_FULL = {"waits_for": "f", "waits_for_label": "Full", "waits_in": "runs/x/f"}
LOW = wanted(row="low", run_key="l", folder="runs/x/l", epochs=60, **FOR_FULL)
LOST = wanted(row="lost", run_key="x", folder="runs/x/x", data_there=False, data="elsewhere")


def test_a_finished_run_releases_those_that_take_its_size(tmp_path):
    started = []

    def start(run, seconds):
        started.append(run.run_key)
        put(tmp_path, run.folder, run_key=run.run_key, status="finished")
        return 0

    outcomes = list(execute(in_order_of_value([LOW, FULL, LOST, FULL]), Known({}, tmp_path), start))
    assert started == ["f", "l"]
    found = [(run.run_key, state, code) for run, state, code in outcomes]
    assert found == [("f", "missing", 0), ("x", "data absent", 0), ("l", "missing", 0)]
    again = execute(in_order_of_value([LOW, FULL]), Known({}, tmp_path), start)
    assert [state for _, state, _ in again] == ["finished", "finished"], "again trains nothing"


def test_a_failure_stops_only_what_waits_for_it(tmp_path):
    outcomes = execute(in_order_of_value([LOW, FULL]), Known({}, tmp_path), lambda run, seconds: 1)
    found = [(run.run_key, state) for run, state, _ in outcomes]
    assert found == [("f", "missing"), ("l", State.WAITS)]


def test_a_stop_ends_the_whole_list(tmp_path):
    outcomes = list(execute([FULL, wanted(run_key="z")], Known({}, tmp_path), lambda run, seconds: 75))
    assert [code for _, _, code in outcomes] == [75]


@pytest.mark.parametrize(
    "codes, worst", [([], 0), ([0, 3, 0], 3), ([3, 2], 2), ([1, 2], 1), ([-9, 0], -9), ([1, 75], 75)]
)
def test_the_worst_exit_code_is_told(codes, worst):
    assert exit_code_of(codes) == worst


def test_the_order_of_value_comes_before_all_others():
    runs = [
        wanted(table=table, row=row, seed=seed, run_key=f"{table}{row}{seed}")
        for table in ("t", "u")
        for row in ("a", "b")
        for seed in (0, 1)
    ]
    order = [OrderBlock("u", [1], ["d"], ["m"], ["b"]), OrderBlock("t", [1, 0], ["d"], ["m"], ["b", "a"])]
    found = [run.run_key for run in in_order_of_value(runs, order)]
    assert found == [*("ub1", "tb1", "ta1", "tb0", "ta0"), *("ua0", "ua1", "ub0")]


def test_runs_that_do_not_fit_into_the_time_are_passed_over(tmp_path):
    """Behind a finished baseline of 100 s for 10 epochs; what is half done needs half of the time."""
    full = wanted(row="full", run_key="a", folder="runs/x/a", baseline=True, epochs=10)
    short, long, half, unknown = (
        wanted(row=name, run_key=name, folder=f"runs/x/{name}", epochs=epochs)
        for name, epochs in (("short", 10), ("long", 30), ("half", 30), ("unknown", None))
    )
    put(tmp_path, half.folder, run_key="half", status="interrupted")
    rows = [f'{{"epoch": {epoch}}}\n' for epoch in range(1, 16)]
    (tmp_path / half.folder / "epochs.jsonl").write_text("".join(rows))
    finished = evidence("a", 0, wall_seconds=100.0, epochs_trained=10)
    estimates = Estimates([full], [full], Collection([finished], []))
    now, started = [0.0], []

    def start(run, seconds):
        started.append((run.run_key, seconds))
        now[0] += 100
        return 0

    limit = TimeLimit((300 + GRACE) / 60, estimates, tmp_path, clock=lambda: now[0])
    outcomes = list(execute([short, long, half, unknown, short], Known({}, tmp_path), start, limit))
    assert started == [("short", 300.0), ("half", 200.0), ("unknown", 100.0)]
    found = [state for _, state, _ in outcomes]
    assert found == ["missing", State.NO_TIME, "interrupted", "missing", State.NO_TIME]


def test_a_run_under_way_at_the_end_of_its_time_is_asked_to_stop(tmp_path):
    hears = (
        "import os, signal, time\nsignal.signal(signal.SIGTERM, lambda *_: os._exit(75))\ntime.sleep(60)\n"
    )
    (tmp_path / "run.py").write_text(hears)
    assert by_front_door(tmp_path)(FULL, 1.0) == 75


def test_a_request_to_stop_is_handed_on_and_ends_the_list(tmp_path):
    """Even if it comes when the run is as good as over: the front door here saves nothing and ends well."""
    hears = "import os, signal, time\nsignal.signal(signal.SIGTERM, lambda *_: os._exit(0))\n"
    (tmp_path / "run.py").write_text(hears + "os.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(60)\n")
    outcomes = execute([FULL, wanted(run_key="o")], Known({}, tmp_path), by_front_door(tmp_path))
    assert [(run.run_key, code) for run, _, code in outcomes] == [("f", 75)]


def evidence(key, hours, **changes):
    times = {"compute_seconds": 3600.0 * hours, "seconds": {"ranks": 0.0}}
    return ran("low", run_key=key, **(times | changes))


def test_hours_are_the_cells_own_else_the_baselines_by_epochs():
    other_seed = wanted(row="low", seed=4, run_key="l4")
    runs = [evidence("f", 2.0), evidence("l4", 5.0)]
    only_full = Estimates([LOW, other_seed], [FULL], Collection(runs[:1], []))
    assert only_full.hours(LOW) == pytest.approx(4.0), "twice the epochs of full rank"
    assert only_full.hours(wanted(epochs=None)) is None and only_full.hours(LOST) is None
    assert Estimates([LOW, other_seed], [FULL], Collection(runs, [])).hours(LOW) == pytest.approx(5.0)


def test_a_bench_of_steps_estimates_otherwise_unknown_runs(tmp_path):
    dense = {"model": "resnet18", "arm": "dense", "width": 64, "precision": "fp32", "batch": 100}
    bench = Bench("steps-x.json", {"hardware": "some CPU"}, [dense | {"step_s": 0.72}])
    estimates = Estimates([], [], Collection([], []), [bench])
    run = wanted(scale="paper", epochs=10, model="resnet18", data="cifar10")
    assert estimates.by_bench(run) == (pytest.approx(10 * 500 * 0.72 / 3600), "some CPU")
    for other in ({"scale": "reduced"}, {"epochs": None}, {"model": "resnet50"}, {"data": "imagenet"}):
        assert estimates.by_bench(replace(run, **other)) is None
    lines = run_list([run, replace(run, run_key="o", model="resnet50")], Known({}, tmp_path), estimates)
    assert lines[0].endswith("1 device hours by the bench") and lines[1].endswith("unknown")
    assert lines[2] == (
        "2 runs to do: about 1 device hours if every step took what a dense one did on some CPU, "
        "and 1 of unknown length"
    )


def test_networks_of_the_other_tables_have_a_bench_of_their_own():
    row = {"model": "deit_base", "arm": "dense", "precision": "bf16", "batch": 128, "step_s": 0.1}
    estimates = Estimates([], [], Collection([], []), [Bench("models-x.json", {"hardware": "a GPU"}, [row])])
    run = wanted(
        scale="paper", epochs=300, model="deit_base_patch16_224", data="imagenet", precision="bf16",
        words=("model=deit_base",),
    )  # fmt: skip
    hours = 300 * 1_281_167 / 128 * 0.1 / 3600
    assert estimates.by_bench(run) == (pytest.approx(hours), "a GPU")
    for other in ({"precision": "fp32"}, {"data": "cifar10"}, {"words": ("model=deit_small",)}):
        assert estimates.by_bench(replace(run, **other)) is None


def test_hours_are_of_the_hardware_used_last():
    runs = [evidence("f", 2.0), evidence("f", 0.5, device="gpu", started="2026-02-01")]
    seeds = [FULL, wanted(row="full", run_key="f9", seed=9)]
    runs[1] = replace(runs[1], record=replace(runs[1].record, run_key="f9"))
    assert Estimates(seeds, [], Collection(runs, [])).hours(FULL) == pytest.approx(0.5)


def test_the_list_names_each_run_once_and_sums_up(tmp_path):
    estimates = Estimates([FULL], [FULL], Collection([evidence("f", 2.0)], []))
    lines = run_list([FULL, LOW, FULL, LOST], Known({("f", "fp32"): None}, tmp_path), estimates)
    assert [line.split()[-1] for line in lines[:3]] == ["finished", "hours", "unknown"]
    assert "data absent" in lines[2]
    assert lines[3] == "2 runs to do: about 4 device hours, and 1 of unknown length"
    assert run_list([FULL], Known({("f", "fp32"): None}, tmp_path), estimates)[-1] == "nothing to do"
    assert run_list([LOST], Known({}, tmp_path), estimates)[-1] == "1 run to do: 1 of unknown length"
    assert run_list([], Known({}, tmp_path), estimates) == ["nothing to do"]
