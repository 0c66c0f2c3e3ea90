import json
from dataclasses import replace
from pathlib import Path

import pytest

from cuttlefish.display import style
from cuttlefish.evidence.benches import Bench, load_benches
from cuttlefish.evidence.records import Collection, Evidence, load_evidence
from cuttlefish.planning.spec import read_spec
from cuttlefish.record.fields import Record
from cuttlefish.record.record import read_record, write_record
from cuttlefish.report.figures import figure1, figure2, figure3, figure4, figure5, figure6, methods
from cuttlefish.report.figures.base import NoData, Sources, seeds_of, sources_of
from cuttlefish.report.figures.gallery import draw_figure
from cuttlefish.report.figures.groups import groups_of
from cuttlefish.report.figures.looks import ratio_word
from cuttlefish.report.paper import PAPER
from scripts import figures as command
from tests.helpers.finished import DENSE
from tests.helpers.planned_runs import wanted
from tests.helpers.synthetic_records import CPU, GPU, LAYERS, put, rank_rows, record

NAMES = {"resnet18": "ResNet-18", "cifar10": "CIFAR-10"}


def planned(made, table="table1", **changes):
    """The run that a record was made for."""
    of_record = {name: getattr(made, name) for name in ("model", "data", "scale", "run_key")}
    row = {"table": table, "row": made.method, "label": made.method.upper()}
    return wanted(seed=made.seed, baseline=made.method == "full_rank", **(of_record | row | changes))


def sources(root, plans=(), benches=()) -> Sources:
    return sources_of(load_evidence(root / "records"), benches, "reduced", plans, NAMES)


def drawn(draw, *arguments):
    with style.styled():
        return draw(*arguments)


def axes_of(draw, found):
    """The only axes of a figure's only drawing."""
    (drawing,) = drawn(draw, found)
    (axes,) = drawing.figure.axes
    return axes


def nine(tmp_path):
    full = DENSE | {"params_stored_bits": 32000}
    made = [
        put(tmp_path, "full_rank", seed, accuracy_final=77.0 + seed, compute_seconds=110.0, **full)
        for seed in (0, 1)
    ]
    made += [put(tmp_path, "cuttlefish", 0, accuracy_final=76.0, compute_seconds=80.0)]
    made += [put(tmp_path, "grasp", 0, accuracy_final=75.0, **(full | {"params_nonzero": 300}))]
    made += [put(tmp_path, "xnor", 0, accuracy_final=60.0, **(full | {"params_stored_bits": 1500}))]
    return made


def test_methods_are_points_at_their_size_accuracy_and_time(tmp_path):
    plans = [planned(made) for made in nine(tmp_path)]
    (drawing,) = drawn(methods.draw, sources(tmp_path, plans))
    left, right = drawing.figure.axes
    points = {box.get_label().split("\n")[0]: box.lines[0] for box in left.containers}
    shown = {name: float(line.get_xdata()[0]) for name, line in points.items()}
    assert shown == {"FULL_RANK": 1000, "CUTTLEFISH": 400, "GRASP": 300, "XNOR": 1000}
    assert points["FULL_RANK"].get_ydata()[0] == 77.5 and points["CUTTLEFISH"].get_ydata()[0] == 76.0
    assert points["GRASP"].get_markerfacecolor() == "white" != points["CUTTLEFISH"].get_markerfacecolor()
    assert "bits a parameter" in left.containers[3].get_label()
    assert "60.0 ↓" in {text.get_text() for text in left.texts}
    assert [round(60 * float(box.lines[0].get_xdata()[0])) for box in right.containers] == [110, 80, 100, 100]
    assert "n = 1 to 2 seeds" in right.get_title(loc="right") and drawing.name == "figure1-methods"
    legend = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert legend[:1] == ["FULL_RANK"]
    assert legend[-2:] == ["filled: all parameters", "hollow: parameters\nnot zero (masked)"]
    (unmasked,) = drawn(methods.draw, sources(tmp_path, [plan for plan in plans if plan.row != "grasp"]))
    assert len(unmasked.figure.legends[0].get_texts()) == 3
    assert len(drawing.runs) == 5


def test_records_meet_the_plan_as_in_the_tables(tmp_path):
    """Of repeats the first counts, on any hardware; a record edited to another seed's counts nowhere."""
    first = put(tmp_path, "lc", 0, accuracy_final=70.0)
    for number, changes in enumerate([{"device": GPU}, {"seed": 3}, {}], 1):
        folder = tmp_path / "records" / f"again{number}"
        folder.mkdir()
        of_repeat = {"accuracy_final": 60.0 + number, "started": f"2026-02-0{number}T00:00:00+00:00"}
        write_record(folder, record("lc", **{"seed": 0} | changes, **of_repeat, run_key=first.run_key))
    found = [Evidence(path, read_record(path)) for path in sorted(tmp_path.rglob("record.json"))]
    groups = groups_of(sources_of(Collection(found, []), [], "reduced", [planned(first)]), "table1")
    ((group,),) = groups.values()
    assert len(found) == 4 and [run.record.accuracy_final for run in group.runs] == [70.0]


def test_equal_budgets_and_published_recipes_are_two_files(tmp_path):
    made = nine(tmp_path)
    both = ("equal budget", "published")
    plans = [planned(one, kinds=both if one.method != "xnor" else ("published",)) for one in made]
    equal, published = drawn(methods.draw, sources(tmp_path, plans))
    assert len(equal.figure.axes[0].containers) == 3 and len(published.figure.axes[0].containers) == 4
    assert published.name == "figure1-methods-published" and made[-1].run_key not in equal.runs


def test_fewer_methods_are_not_drawn_but_told(tmp_path):
    made = put(tmp_path, "full_rank")
    plans = [planned(made), planned(made, row="lc", run_key="0" * 12)]
    with pytest.raises(NoData, match="1 of its 2 runs are finished"):
        methods.draw(sources(tmp_path, plans))


def test_the_floor_is_only_for_one_that_lies_far_below():
    assert methods.floor_of([77, 76, 75]) is None
    assert methods.floor_of([77, 76, 75, 60]) == pytest.approx(75 - 0.8)


def test_the_grid_has_a_point_a_setting_and_a_star(tmp_path):
    plans = [
        planned(put(tmp_path, "cuttlefish", 0), "figure1"),
        planned(put(tmp_path, "full_rank", 0, params_total=1000), "figure1"),
    ]
    for number, (epoch, k, ratio) in enumerate([(3, 1, 0.5), (3, 5, 0.25), (12, 1, 0.125), (12, 5, 0.5)]):
        size = {"params_total": 200 + number, "params_trainable": 100, "accuracy_final": 70.0 + number}
        switch = {"switch_epoch": epoch, "k": k, "ranks": {"a": 1}, "knobs": {"k": k, "rank_ratio": ratio}}
        point = (("method.k", str(k)), ("method.rank_ratio", str(ratio)))
        made = put(tmp_path, "pufferfish", 0, **switch, **size)
        plans.append(planned(made, "figure1", point=point))
    axes = axes_of(figure1.draw, sources(tmp_path, plans))
    shown = sorted(float(box.lines[0].get_xdata()[0]) for box in axes.containers)
    assert shown == [200, 201, 202, 203, 400, 1000]
    words = {text.get_text() for text in axes.get_legend().get_texts()}
    assert words == {"E = 0.1 of the run", "E = 0.4 of the run", "K = 1", "K = 5", "CUTTLEFISH", "FULL_RANK"}
    assert "4 points of the grid" in axes.get_title(loc="right")
    with pytest.raises(NoData, match="3 points of the grid"):
        figure1.draw(sources(tmp_path, plans[:4]))
    no_place = [{"k": None}, {"accuracy_final": None, "metrics": {"f1": 1.0}}]
    for number, unknown in enumerate(no_place):
        made = put(tmp_path, "pufferfish", 9, **unknown)
        plans.append(planned(made, "figure1", point=(("method.k", str(7 + number)),)))
    again = axes_of(figure1.draw, sources(tmp_path, plans))
    assert again.get_title(loc="right") == axes.get_title(loc="right")


def tracked(root, seed, last, **changes):
    rows = rank_rows(lambda layer, epoch: 1 + (last - 1) * min(epoch, 10) / 10)
    return put(root, "full_rank", seed, rows=rows, **DENSE, **changes)


def curves_of(axes):
    return [line for line in axes.lines if line.get_gid() != "leader"]


def test_rank_curves_are_means_over_seeds(tmp_path):
    tracked(tmp_path, 0, 0.4)
    tracked(tmp_path, 1, 0.6)
    axes = axes_of(figure2.draw, sources(tmp_path))
    curves = curves_of(axes)
    assert len(curves) == len(LAYERS)
    assert {round(float(curve.get_ydata()[-1]), 6) for curve in curves} == {0.5}
    assert "n = 2 seeds" in axes.get_title(loc="right")
    assert axes.get_title(loc="left") == "ResNet-18 on CIFAR-10"
    with pytest.raises(NoData, match="track_ranks"):
        figure2.draw(sources(tmp_path / "nothing"))


@pytest.mark.parametrize(
    "damage, curves", [("\n0,conv1,1,1,16\n30,conv1,1,1,16\n", 1), ("\n99,conv1,1,1,16\n", 0), ("x", 5)]
)
def test_runs_whose_ranks_are_damaged_share_what_they_have(tmp_path, damage, curves):
    tracked(tmp_path, 0, 0.4)
    made = tracked(tmp_path, 1, 0.6)
    (tmp_path / "records" / made.run_key / "ranks.csv").write_text(damage)
    found = sources(tmp_path)
    drawn(figure3.draw, found)
    if not curves:
        with pytest.raises(NoData):
            figure2.draw(found)
        return
    assert len(curves_of(axes_of(figure2.draw, found))) == curves


def test_settled_ratios_stand_beside_the_ranks_found(tmp_path):
    tracked(tmp_path, 0, 0.5)
    found = put(tmp_path, "cuttlefish", 0)
    (drawing,) = drawn(figure3.draw, sources(tmp_path, [planned(found, "figure3")]))
    (axes,) = drawing.figure.axes
    settled, chosen = axes.lines
    assert [round(float(y), 6) for y in settled.get_ydata()] == [0.5] * 5
    assert list(chosen.get_xdata()) == [1, 2] and list(chosen.get_ydata()) == [0.5, 0.25]
    assert chosen.get_label() == "CUTTLEFISH, E = 10, n = 1 seed" and len(drawing.runs) == 2


def test_chosen_ranks_are_drawn_over_the_full_ones(tmp_path):
    tracked(tmp_path, 0, 0.5)
    made = [put(tmp_path, "cuttlefish", 0), put(tmp_path, "lc", 0, ranks={"layer4.0.conv1": 8})]
    plans = [planned(one) for one in made] + [planned(one, "figure5") for one in made]
    axes = axes_of(figure5.draw, sources(tmp_path, plans))
    assert [bar.get_height() for bar in axes.patches] == list(LAYERS.values())
    ours, theirs = axes.lines
    assert [y for y in ours.get_ydata()[1:3]] == [16, 16]
    assert theirs.get_ydata()[3] == 8
    assert theirs.get_label() == "LC"
    assert axes.get_title(loc="left") == "ResNet-18 on CIFAR-10"
    assert axes.get_title(loc="right") == "equal budget, n = 1 seed"
    with pytest.raises(NoData, match="two of the methods"):
        figure5.draw(sources(tmp_path, plans[:1]))


def bench(profiled, rows, hardware=CPU, **facts):
    """A profile of ResNet-18 with ratios of which 1/4 decides, repeated three times."""
    network = {"model": "resnet18", "width": 64, "batch": {"stacks": 128, "layers": 8}[profiled]}
    machine = {"hardware": hardware, "threads": 2, "precision": "fp32", "time": "2026"}
    ratios = {"ratios": [0.5, 0.25], "deciding_ratio": 0.25, "threshold": 1.5, "zeta": 11}
    repeats = {"repeats": [{"k": 1}, {"k": 5}, {"k": 1}]}
    given = {"profiled": profiled, **network, **machine, **ratios, **repeats, **facts}
    return Bench(f"profile-{profiled}-resnet18-x.json", given, rows)


STACK = {
    "stack": "8×8",
    "layers": ["a", "b"],
    "full_s": [0.004, 0.006, 0.005],
    "low_s": [[0.004, 0.004, 0.004], [0.002, 0.001, 0.003]],
}
LAYER = {"layer": "l", "kind": "conv", "full_s": [0.004], "low_s": [[0.004], [0.002]]}


def test_bars_are_medians_of_the_repetitions_in_milliseconds(tmp_path):
    axes = axes_of(figure4.draw, sources(tmp_path, benches=[bench("stacks", [STACK, STACK])]))
    assert [round(bar.get_height(), 9) for bar in axes.patches] == [5.0, 5.0, 4.0, 4.0, 2.0, 2.0]
    assert {text.get_text() for text in axes.texts} == {"1/4: 2.50×"}
    assert {text.get_fontweight() for text in axes.texts} == {"bold"}
    assert axes.get_title(loc="right") == "width 64, batch 128: K = 1 or 5"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["full rank", "1/2", "1/4"]


def test_layers_are_drawn_by_kind_with_their_mean_speed_up(tmp_path):
    head = LAYER | {"kind": "fc", "layer": "head"}
    rows = [LAYER, LAYER, LAYER | {"low_s": [[0.002], [0.001]]}, head]
    axes = axes_of(figure6.draw, sources(tmp_path, benches=[bench("layers", rows)]))
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    assert shown == ["full rank", "1/2 (1.33×)", "1/4 (2.67×)"]
    assert "head of ResNet-18 at 1/4: 2.00×" in axes.figure.get_supxlabel().replace("\n", " ")


def test_the_ratios_that_a_run_chose_are_marked_and_the_run_named(tmp_path):
    rows = [LAYER, LAYER | {"chosen": {"l": 0.3}, "chosen_s": [0.001]}, LAYER]
    run = {"run_key": "0123456789ab", "model": "resnet18", "data": "cifar10"}
    axes = axes_of(figure6.draw, sources(tmp_path, benches=[bench("layers", rows, chosen_by=run)]))
    assert axes.get_legend().get_texts()[-1].get_text() == "as chosen (4.00×)"
    assert [line.get_xydata().tolist() for line in axes.lines][-1] == [[2, 1.0]]
    told = axes.figure.get_supxlabel().replace("\n", " ")
    assert "ResNet-18 as chosen: the ratios of run 0123456789ab, ResNet-18 on CIFAR-10" in told


def test_every_profiled_network_is_called_by_its_name():
    benches = load_benches(command.ROOT / "results" / "bench")
    models = {one.facts["model"] for one in benches if one.what == "profile"}
    names = read_spec(PAPER / "tables.yaml").names
    assert models <= names.keys()
    assert names["deit_small_patch16_224"] == "DeiT-small"
    assert names["resnet50"] == "ResNet-50"


def test_batches_and_precisions_are_not_mixed(tmp_path):
    wide = bench("stacks", [STACK], batch=1024)
    others = [wide, bench("stacks", [STACK], precision="bf16"), bench("stacks", [STACK], width=16)]
    others += [bench("layers", [STACK], batch=128)]
    narrow = bench("stacks", [STACK])
    assert sources(tmp_path, benches=[narrow, *others]).benches == [narrow]
    at_paper_scale = sources_of(load_evidence(tmp_path), [narrow, *others[:3]], "paper")
    assert at_paper_scale.benches == [wide], "whose batch is the paper's"
    assert sources_of(load_evidence(tmp_path), [narrow, *others], "smoke").benches == [narrow]


def test_a_gpus_profile_is_not_of_the_reduced_scale(tmp_path):
    with pytest.raises(NoData, match="no stack profile"):
        figure4.draw(sources(tmp_path, benches=[bench("stacks", [STACK], hardware=GPU)]))


def test_small_print_counts_seeds():
    runs = [Evidence(Path("x"), Record(seed=seed)) for seed in (0, 1, 1)]
    assert seeds_of(runs) == "n = 2 seeds"
    assert seeds_of(runs, runs[:1]) == "n = 1 to 2 seeds"
    assert seeds_of(runs[:1]) == "n = 1 seed"
    assert [ratio_word(ratio) for ratio in (0.5, 0.0625, 0.3)] == ["1/2", "1/16", "3/10"]


def test_a_figure_whose_evidence_is_gone_goes_too(tmp_path):
    found = sources(tmp_path, benches=[bench("stacks", [STACK])])
    (one,) = draw_figure("figure4", found, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["figure4.png", "figure4.svg"]
    assert not one.missing
    (one,) = draw_figure("figure4", replace(found, benches=[]), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    assert one.command == "make figure4 SCALE=reduced"
    assert "no stack profile" in one.missing


def test_files_of_a_figure_drawn_no_more_are_removed(tmp_path):
    for name in ("figure4-published", "figure44", "figure4-methods"):
        (tmp_path / f"{name}.svg").touch()
    draw_figure("figure4", sources(tmp_path, benches=[bench("stacks", [STACK])]), tmp_path)
    shown = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert shown == ["figure4-methods.svg", "figure4.svg", "figure44.svg"]


@pytest.fixture
def figures(tmp_path, monkeypatch):
    """The command with no planned runs: draws figures of these numbers, returns the list that it writes."""
    monkeypatch.setattr(command, "planned_runs", lambda *_: [])

    def run(*numbers):
        assert command.main([*numbers, "--scale", "reduced", "--results", str(tmp_path)]) == 0
        listed = json.loads((tmp_path / "figures/reduced/figures.json").read_text())
        return {one["name"]: one for one in listed}

    return run


@pytest.mark.parametrize("text", ["{", "[3]", "3"])
def test_a_damaged_list_is_written_again(tmp_path, figures, text):
    (tmp_path / "figures/reduced").mkdir(parents=True)
    (tmp_path / "figures/reduced/figures.json").write_text(text)
    assert list(figures("6")) == ["figure6"]


def test_the_command_draws_what_it_can_and_says_what_is_missing(tmp_path, capsys, figures):
    tracked(tmp_path, 0, 0.5)
    (tmp_path / "bench").mkdir()
    figures("2", "6")
    listed = figures("1")
    out = capsys.readouterr().out
    assert "figure6" in out and "no layer profile" in out and "(1 run)" in out
    assert list(listed) == ["figure1", "figure1-methods", "figure2", "figure6"]
    assert listed["figure2"]["runs"]
    assert listed["figure6"]["missing"]
    assert (tmp_path / "figures/reduced/figure2.svg").exists()


def test_smoke_runs_are_drawn_from_where_they_stay(tmp_path, monkeypatch):
    tracked(tmp_path, 0, 0.5, scale="smoke")
    (tmp_path / "runs").mkdir()
    (tmp_path / "records").rename(tmp_path / "runs" / "debug")
    monkeypatch.setattr(command, "planned_runs", lambda *_: [])
    assert command.main(["2", "--scale", "smoke", "--results", str(tmp_path / "results")]) == 0
    assert (tmp_path / "results" / "figures" / "smoke" / "figure2.svg").exists()


def test_an_unknown_number_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["7"])
    assert "there are 1 to 6" in capsys.readouterr().err
