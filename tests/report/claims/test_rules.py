"""Each rule against numbers worked out by hand from synthetic records and benches."""

from dataclasses import replace

import pytest
from scipy import stats

from cuttlefish.evidence.benches import Bench
from cuttlefish.evidence.interval import Range, t_interval
from cuttlefish.evidence.records import load_evidence
from cuttlefish.evidence.selection import Runs
from cuttlefish.report.claims.reading import reading_of
from cuttlefish.report.claims.rules import book
from cuttlefish.report.claims.rules.case import Case
from cuttlefish.report.claims.verdict import Judgement
from tests.helpers.synthetic_records import CPU, put, rank_rows

OURS, FULL = {"method": "cuttlefish"}, {"method": "full_rank"}


def rule(name, **parameters):
    return {"name": name, **parameters}


SPEEDUP = rule("paired_quotient", left=FULL, right=OURS, of="compute_seconds")
GRID = rule("frontier", ours=OURS, grid=[{"method": "pufferfish", "config.method.rank_ratio": [0.125, 0.25]}])


def measures(root, spec, benches=(), needs=2):
    runs = Runs(load_evidence(root / "records").runs)
    return book.apply(spec, Case("claim", "reduced", runs, list(benches), Range(), needs))


def test_a_quotient_of_fields_with_its_affine_map(tmp_path):
    for seed in (0, 1):
        put(tmp_path, seed=seed, seconds={"profiling": 1.0 + seed}, compute_seconds=50.0)
    share = rule(
        "mean_over_seeds", where=OURS, of="seconds.profiling", over="compute_seconds", times=100, plus=1
    )
    (found,) = measures(tmp_path, share)
    assert found.samples == pytest.approx([3.0, 5.0])


def test_the_largest_cell_counts(tmp_path):
    put(tmp_path, params_total=500, params_trainable=1)
    put(tmp_path, data="cifar100", params_total=250, params_trainable=1)
    cells = [{"data": "cifar10"}, {"data": "cifar100"}, {"data": "svhn"}]
    largest = rule("largest_over_cells", cells=cells, of="params_full", over="params_total")
    (found,) = measures(tmp_path, largest)
    assert found.samples == [4.0]


def test_the_variation_of_sizes_over_seeds(tmp_path):
    for seed, size in enumerate((100, 104, 97)):
        put(tmp_path, seed=seed, params_total=size, params_trainable=1)
    put(tmp_path, model="vgg19")
    cells = [{"model": "resnet18"}, {"model": "vgg19"}]
    variation = rule("variation_over_seeds", cells=cells, of="params_total")
    (found,) = measures(tmp_path, variation)  # VGG-19 has too few seeds to count
    assert found.value == pytest.approx(stats.variation([100, 104, 97], ddof=1))
    assert found.interval[0] < found.value < found.interval[1]
    assert found.notes == ["without vgg19: 1 of 2 seeds"]
    assert [measure.samples for measure in measures(tmp_path, variation, needs=5)] == [[100, 104, 97], [400]]


def test_differences_are_within_pairs_of_one_seed_and_data(tmp_path):
    for seed, points in ((0, 1.0), (1, 3.0), (2, 5.0)):
        put(tmp_path, "cuttlefish", seed, accuracy_final=70 + points)
        put(tmp_path, "full_rank", seed, accuracy_final=70.0, data_digest="other" if seed == 2 else "d")
    put(tmp_path, "full_rank", 9, accuracy_final=10.0)
    runs = load_evidence(tmp_path / "records").finished
    assert len(runs) == 7
    right = FULL | {"data_digest": "d"}
    (found,) = measures(tmp_path, rule("paired_difference", left=OURS, right=right, of="accuracy_final"))
    assert found.samples == [1.0, 3.0] and len(found.runs) == 4


def test_pairs_of_unlike_ranks_or_sizes_are_dropped_and_told(tmp_path):
    for seed, ranks, size in ((0, {"a": 1}, 400), (1, {"a": 2}, 400), (2, {"a": 1}, 700)):
        put(tmp_path, "cuttlefish", seed, ranks={"a": 1})
        put(tmp_path, "si_fd", seed, ranks=ranks, params_total=size, params_trainable=1, accuracy_final=75.0)
    alike = {"same": ["ranks"], "right_sized_as": OURS, "tolerance": 0.05}
    right = {"method": "si_fd"}
    difference = rule("paired_difference", left=OURS, right=right, of="accuracy_final", **alike)
    (found,) = measures(tmp_path, difference)
    assert found.samples == [1.0]
    unlike, unsized = found.notes
    assert unlike == "1 pairs dropped: unlike ranks"
    assert unsized == "1 pairs dropped: not within 5% of the size wanted"


def test_times_come_from_the_machine_with_most_seeds(tmp_path):
    for seed, device in ((0, "A, 2 cores"), (1, "A, 2 cores"), (1, "B, 2 cores")):
        for method, seconds in (("full_rank", 110.0), ("cuttlefish", 100.0 if device[0] == "A" else 10.0)):
            put(tmp_path, method, seed, device=device, compute_seconds=seconds)
    on_one_machine = SPEEDUP | {"alike": ["hardware"]}
    assert measures(tmp_path, on_one_machine)[0].samples == pytest.approx([1.1, 1.1])
    saved = on_one_machine | {"left": OURS, "right": FULL, "times": -100, "plus": 100}
    assert measures(tmp_path, saved)[0].samples == pytest.approx([100 / 11, 100 / 11])


@pytest.mark.parametrize(
    "odd", [{"setting": {"trainer": {"compile": True}}}, {"packages": {"torch": "2.15.0"}}]
)
def test_a_speed_up_is_of_runs_compiled_alike_by_one_torch(tmp_path, odd):
    put(tmp_path, "full_rank", packages={"torch": "2.14.0"})
    put(tmp_path, "cuttlefish", **{"packages": {"torch": "2.14.1"}} | odd)
    assert measures(tmp_path, SPEEDUP)[0].missing == "the two arms have no seed in common"


def test_patch_releases_of_torch_compare(tmp_path):
    put(tmp_path, "full_rank", packages={"torch": "2.14.0"})
    put(tmp_path, "cuttlefish", packages={"torch": "2.14.1+cu130"})
    assert measures(tmp_path, SPEEDUP)[0].samples == [1.0]


def put_point(root, seed=0, ratio=0.125, size=300, accuracy=70.0):
    """Put a run of the grid."""
    knobs = {"rank_ratio": ratio}
    put(root, "pufferfish", seed, params_total=size, params_trainable=1, accuracy_final=accuracy, knobs=knobs)


def test_only_smaller_grid_points_are_held_against_ours(tmp_path):
    for seed in (0, 1):
        put(tmp_path, seed=seed, accuracy_final=76.0)
        put_point(tmp_path, seed, accuracy=75.0 + seed)
        put_point(tmp_path, seed, ratio=0.25, size=900, accuracy=79.0)
    (found,) = measures(tmp_path, GRID)
    assert found.samples == [-1.0, 0.0] and "rank_ratio 0.125" in found.name


def test_the_point_nearest_to_refuting_is_shown_and_a_part_that_refutes_before_all(tmp_path):
    for seed in (0, 1):
        put(tmp_path, seed=seed, accuracy_final=76.0)
        put_point(tmp_path, seed, accuracy=70.0 + seed)
        put_point(tmp_path, seed, ratio=0.25, accuracy=74.0 + seed)
    first, second = measures(tmp_path, GRID)
    assert (first.samples, second.samples) == ([-2.0, -1.0], [-6.0, -5.0])
    assert reading_of([first, second], Judgement.HOLDS, "").ours == -1.5
    refuting = replace(second, accept=Range(low=1.0))
    shown = reading_of([first, refuting], Judgement.FAILS, "")
    assert shown.ours == shown.parts[0].value == -5.5 and shown.parts[0].accept == (1.0, None)


def test_a_grid_is_its_points_not_their_number(tmp_path):
    put(tmp_path)
    for ratio in (0.125, 0.5):  # the second is no point of the grid
        put_point(tmp_path, ratio=ratio)
    found, absent = measures(tmp_path, GRID)
    assert found.samples and absent.missing == "1 of the grid's 2 points have no run" and absent.samples == []


def test_a_grid_says_what_many_points_do_to_the_error(tmp_path):
    put(tmp_path)
    for ratio in (0.125, 0.25):
        put_point(tmp_path, ratio=ratio)
    (first, second) = measures(tmp_path, GRID)
    assert first.notes == second.notes
    assert "2 points" in first.notes[0]
    assert "up to 0.05 of them" in first.notes[0]


def test_a_grid_point_without_a_seed_of_ours_is_missing(tmp_path):
    put(tmp_path, seed=0)
    for seed, ratio in ((0, 0.125), (1, 0.25)):
        put_point(tmp_path, seed, ratio)
    found, absent = measures(tmp_path, GRID)
    assert found.samples and "no seed in common" in absent.missing and "rank_ratio 0.25" in absent.missing


def test_settling_is_the_slowest_layers_late_over_early_change(tmp_path):
    # Down by 0.1 an epoch for three epochs, then by 0.01 (layer3: 0.02); the outer layers keep falling fast.
    def ratio(layer, epoch):
        late = {"layer3.0.conv1": 0.02, "conv1": 0.05, "fc": 0.05}.get(layer, 0.01)
        return 1 - 0.1 * min(epoch, 3) - late * max(epoch - 3, 0)

    put(tmp_path, "full_rank", rows=rank_rows(ratio, epochs=16))
    settle = rule("ranks_settle", where=FULL, early=[1, 3])
    (found,) = measures(tmp_path, settle | {"late_before_drop": 5})
    assert found.samples == pytest.approx([0.2])
    (found,) = measures(tmp_path, settle | {"late": [3, 4]})
    assert found.samples == pytest.approx([(0.1 + 0.02) / 2 / 0.1])
    (found,) = measures(tmp_path, settle | {"late": [80, 150]})
    assert "has recorded its ranks" in found.missing


def test_the_spread_of_ratios_leaves_the_outer_layers_out(tmp_path):
    last = {"conv1": 0.1, "layer2.0.conv1": 0.6, "layer3.0.conv1": 0.3, "layer4.0.conv1": 0.2, "fc": 0.01}
    put(tmp_path, "full_rank", rows=rank_rows(lambda layer, epoch: last[layer] if epoch else 1))
    (found,) = measures(tmp_path, rule("ranks_differ", where=FULL))
    assert found.samples == pytest.approx([3.0])


def test_ranks_of_two_methods_agree_by_order_and_by_size(tmp_path):
    names = ["a", "b", "c", "d"]
    rows = rank_rows(lambda *_: 1, 1, {"first": 8, **{name: 64 for name in names}})
    put(tmp_path, "cuttlefish", ranks=dict(zip(names, (10, 20, 30, 40), strict=True)), rows=rows)
    put(tmp_path, "lc", ranks=dict(zip(names[:3], (5, 20, 15), strict=True)))  # d stayed dense: 64
    accept = {"correlation": {"at_least": 0.7}, "quotient": {"within": [0.5, 2]}}
    correlation, quotient = measures(
        tmp_path, rule("ranks_agree", left=OURS, right={"method": "lc"}, **accept)
    )
    assert correlation.samples == pytest.approx([0.8])  # 1 - 6 * (1 + 1) / (4 * 15)
    assert quotient.samples == [pytest.approx((2 + 1) / 2)] and quotient.accept == Range(0.5, 2)


ARM = {"model": "resnet18", "width": 64, "batch": 100, "precision": "fp32"}


def step(arm, seconds, flops, **more):
    spread = {"step_s": seconds[1], "fastest_s": seconds[0], "slowest_s": seconds[2]}
    return {**ARM, "arm": arm, "flops": flops, **spread, **more}


def benches(rounds=False):
    facts = {"hardware": CPU, "threads": 2}
    kept = [{"rounds_s": [4.0, 4.2, 3.8]}, {"rounds_s": [2.0, 2.0, 2.0]}] if rounds else [{}, {}]
    steps = [
        step("dense", (3.8, 4.0, 4.2), 200, **kept[0]),
        step("rank 1/4", (1.9, 2.0, 2.1), 100, **kept[1]),
    ]
    once = [
        {"part": "profile", "per": "run", "width": 64, "k": 1, "seconds": 20.0},
        {"part": "switch", "per": "run", "width": 64, "layers": 16, "seconds": 2.0},
    ]
    return [
        Bench("steps-x.json", facts, steps),
        Bench("overhead-x.json", facts, once),
        Bench("ranks-x.json", facts, [{"ours_s": 0.5}]),
    ]


COMPOSED = rule("composed_speedup", where=OURS, arm=ARM, run={"epochs": 300, "images": 1000}, unnamed=True)


def test_a_composed_run_is_the_sum_of_its_measured_parts(tmp_path):
    put(tmp_path, switch_epoch=10, macs_full=1000, macs_final=600)
    (found,) = measures(tmp_path, COMPOSED, benches())
    # E = 100 of 300; ten steps an epoch; 0.6 of the dense step's 200 FLOPs at rank 1/4's 50 FLOPs a second:
    # 2.4 s a step
    ours = 10 * (100 * 4.0 + 200 * 2.4) + 20 + 2 + 101 * 0.5
    assert found.samples == pytest.approx([300 * 10 * 4.0 / ours])
    assert found.composed
    assert len(found.benches) == 3
    (share,) = measures(tmp_path, COMPOSED | {"name": "composed_share", "of": "ranks"}, benches())
    assert share.samples == pytest.approx([100 * 50.5 / ours])


def test_a_composed_interval_spans_seeds_and_steps(tmp_path):
    for seed, epoch in enumerate((9, 10, 12)):
        put(tmp_path, seed=seed, switch_epoch=epoch)
    (found,) = measures(tmp_path, COMPOSED, benches())
    alone = t_interval(found.samples)
    assert found.interval[0] < alone[0] and found.interval[1] > alone[1]


def test_a_composed_run_needs_benches_of_its_model(tmp_path):
    put(tmp_path)
    assert "make bench" in measures(tmp_path, COMPOSED, benches()[:2])[0].missing
    assert "resnet18" in measures(tmp_path, COMPOSED | {"unnamed": False}, benches())[0].missing


@pytest.mark.parametrize("other", [{"hardware": "another CPU, 2 cores"}, {"threads": 1}])
def test_a_composed_run_is_of_one_machine(tmp_path, other):
    put(tmp_path)
    steps, overhead, ranks = benches()
    odd = replace(steps, name="steps-y.json", facts=steps.facts | other)
    assert "on one machine" in measures(tmp_path, COMPOSED, [odd, overhead, ranks])[0].missing
    (found,) = measures(tmp_path, COMPOSED, [steps, overhead, ranks, odd])  # the newest steps stand alone
    assert found.benches == [steps, ranks, overhead]


def test_a_step_saves_what_its_rounds_say(tmp_path):
    saving = rule("step_saving", slow={"arm": "dense"}, fast={"arm": "rank 1/4"})
    (found,) = measures(tmp_path, saving, benches(rounds=True))
    low, high = stats.t.interval(0.95, 2, loc=2.0, scale=stats.sem([2.0, 2.1, 1.9]))
    assert found.samples == pytest.approx([50.0, 100 * (1 - 1 / 2.1), 100 * (1 - 1 / 1.9)])
    assert found.interval == pytest.approx((100 * (1 - 1 / low), 100 * (1 - 1 / high)))
    (found,) = measures(tmp_path, saving, benches())  # no rounds kept: the widest of fastest and slowest
    assert found.interval == pytest.approx((100 * (1 - 2.1 / 3.8), 100 * (1 - 1.9 / 4.2)))
    assert len(found.samples) == 1


def profile(profiled, rows=(), **facts):
    given = {"hardware": CPU, "profiled": profiled, "model": "resnet18", "batch": 8, "ratios": [0.5, 0.25]}
    return Bench(f"profile-{profiled}-x.json", given | facts, list(rows))


def test_profiled_k_has_a_sample_a_repetition(tmp_path):
    bench = profile("stacks", repeats=[{"k": 1, "first_factorized": 2}, {"k": 5, "first_factorized": 6}])
    profiled = rule("profiled_k", model="resnet18", counted="first_factorized", facts={"batch": 8})
    assert measures(tmp_path, profiled, [bench])[0].samples == [2.0, 6.0]
    assert "batch 9" in measures(tmp_path, profiled | {"facts": {"batch": 9}}, [bench])[0].missing


def test_a_layer_speed_up_is_the_mean_over_layers_of_a_kind(tmp_path):
    rows = [
        {"kind": "conv", "full_s": [4.0, 6.0], "low_s": [[9.0, 9.0], [2.0, 2.0]]},
        {"kind": "conv", "full_s": [3.0, 3.0], "low_s": [[9.0, 9.0], [3.0, 1.0]]},
        {"kind": "fc", "full_s": [1.0, 1.0], "low_s": [[9.0, 9.0], [5.0, 5.0]]},
    ]
    speedup = rule("layer_speedup", model="resnet18", kind="conv", ratio=0.25, facts={"batch": 8})
    benches = [profile("layers", rows)]
    assert measures(tmp_path, speedup, benches)[0].samples == [1.5, 3.0]
    assert "rank ratio 0.125" in measures(tmp_path, speedup | {"ratio": 0.125}, benches)[0].missing
