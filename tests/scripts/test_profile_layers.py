import json
import subprocess
from pathlib import Path

import pytest
import timm
import torch

from cuttlefish.evidence.benches import load_benches
from cuttlefish.lowrank.path import main_path
from cuttlefish.lowrank.profiling.timing import Conditions
from cuttlefish.models.resnet_cifar import ResNet
from cuttlefish.worker import run_config
from scripts.profile_layers import main
from scripts.profiles import stacks
from scripts.profiles.chosen import chosen_by
from scripts.profiles.layers import groups_of, profile_layers
from scripts.profiles.units import sub_block_at_ratios
from tests.helpers.runs import little_config

IMAGES = torch.zeros(2, 3, 32, 32)
SMALL = "stacks --model resnet18 --width 4 --batch 2 --zeta 2 --device cpu"
CONDITIONS = Conditions(IMAGES, 0.25, 2, False, False, torch.no_grad)


def test_each_repetition_is_written_with_the_k_it_would_choose(tmp_path, capsys):
    arguments = f"{SMALL} --repeats 2".split()
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    assert str(path) in capsys.readouterr().out
    found = json.loads(path.read_text())
    assert [row["stack"] for row in found["rows"]] == ["32×32", "16×16", "8×8", "4×4"]
    assert [len(row["layers"]) for row in found["rows"]] == [4, 4, 4, 4]
    for row in found["rows"]:
        times = [row["full_s"], *row["low_s"]]
        assert len(row["low_s"]) == len(found["ratios"]) == 4
        assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in times)
    for repeat in found["repeats"]:
        assert repeat["first_factorized"] == repeat["k"] + 1
        assert repeat["k"] in (1, 5, 9, 13, 18)
    facts = [found[name] for name in ("batch", "width", "precision", "device", "profiled")]
    assert facts == [2, 4, "fp32", "cpu", "stacks"]


@pytest.mark.parametrize("slow_stacks, k", [(0, 1), (1, 5), (2, 9), (4, 18)])
def test_k_counts_the_layers_before_the_first_fast_enough_stack(monkeypatch, slow_stacks, k):
    calls = iter(range(100))
    monkeypatch.setattr(stacks, "_seconds", lambda *_: [3.0, 1.9 if next(calls) >= slow_stacks else 2.1])
    _, decisions = stacks.profile_of_stacks(ResNet(10, 3, width=8), CONDITIONS, [0.25], 1)
    assert decisions[0]["k"] == k


def test_a_transformers_sub_blocks_are_timed_as_a_whole():
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=10)
    parts = list(groups_of(model, main_path(model, IMAGES)))
    assert [(part.name, part.kind) for part in parts] == [
        ("patch_embed.proj", "conv"),
        ("blocks.0.attn", "attn"),
        ("blocks.0.mlp", "mlp"),
        ("blocks.1.attn", "attn"),
        ("blocks.1.mlp", "mlp"),
        ("head", "fc"),
    ]
    assert parts[1].layers == ["blocks.0.attn.qkv", "blocks.0.attn.proj"]
    rows, repetitions = profile_layers(model, CONDITIONS, [0.5, 0.25], 1)
    assert [row["layer"] for row in rows] == [part.name for part in parts] and len(repetitions) == 1
    assert all(len(row["low_s"]) == 2 for row in rows)


def test_a_sub_block_is_factorized_in_copies_at_each_ratio():
    block = timm.create_model("vit_tiny_patch16_224", depth=1).blocks[0].attn
    ratios = [dict.fromkeys(("qkv", "proj"), ratio) for ratio in (0.5, 0.25)]
    full, half, quarter = sub_block_at_ratios(block, ratios)
    assert full.qkv.weight.shape == block.qkv.weight.shape == (576, 192)
    sizes = [sum(p.numel() for p in part.parameters()) for part in (quarter, half, full)]
    assert sizes[0] < sizes[1] < sizes[2]
    given = torch.randn(2, 5, 192)
    assert quarter(given).shape == full(given).shape
    assert torch.equal(full(given), block(given))


def test_resnet_50_has_the_papers_49_convolutions():
    model = timm.create_model("resnet50")
    kinds = [part.kind for part in groups_of(model, main_path(model, torch.zeros(2, 3, 64, 64)))]
    assert kinds.count("conv") == 49 and kinds.count("fc") == 1 and len(kinds) == 50


def test_an_unknown_model_ends_in_one_sentence(capsys, tmp_path):
    assert main(["layers", "--model", "resnet5o", "--device", "cpu", "--out", str(tmp_path)]) == 2
    assert "resnet5o" in capsys.readouterr().err


def test_what_is_there_is_not_measured_again(tmp_path, capsys):
    arguments = [*f"{SMALL} --repeats 1 --missing --out".split(), str(tmp_path)]
    assert main(arguments) == 0
    (path,) = tmp_path.iterdir()
    path.write_text("mine")
    assert main(arguments) == 0
    assert path.read_text() == "mine" and capsys.readouterr().out == f"{path}\n" * 2


def test_a_dry_run_says_what_is_missing_and_writes_nothing(tmp_path, capsys):
    arguments = ["layers", "--model", "resnet50", "--device", "cpu", "--out", str(tmp_path), "--dry-run"]
    assert main(arguments) == 0
    (told,) = capsys.readouterr().out.splitlines()
    assert told.startswith("profile-layers-resnet50-")
    assert told.endswith(".json: missing")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / told.partition(":")[0]).touch()
    assert main(arguments) == 0 and capsys.readouterr().out.endswith(".json: there\n")


@pytest.mark.parametrize(
    "words, name",
    [
        ("stacks --model resnet18", "stacks-resnet18-batch128-fp32-"),
        ("stacks --model resnet18 --scale paper", "stacks-resnet18-batch1024-fp32-"),
        ("layers --model resnet50 --scale reduced", "layers-resnet50-batch8-fp32-"),
        ("layers --model resnet50 --scale paper", "layers-resnet50-batch128-fp32-"),
        ("stacks --model vgg19 --width 16 --batch 2", "stacks-vgg19-width16-batch2-fp32-"),
        ("stacks --model vgg19 --precision bf16", "stacks-vgg19-batch128-bf16-"),
    ],
)
def test_every_setting_has_a_file_of_its_own(words, name, tmp_path, capsys):
    assert main([*words.split(), "--device", "cpu", "--dry-run", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(f"profile-{name}")


def test_scales_below_the_papers_are_measured_on_the_cpu(tmp_path, monkeypatch):
    asked = []

    def choose(trainer):
        asked.append(trainer.device)
        return torch.device("cpu")

    monkeypatch.setattr("scripts.profile_layers.choose_device", choose)
    for words in ("", "--scale reduced", "--scale paper", "--scale reduced --device cuda"):
        assert main(f"stacks --model vgg19 {words} --dry-run --out".split() + [str(tmp_path)]) == 0
    assert asked == ["auto", "cpu", "auto", "cuda"]


def made(*words):
    makefile = Path(__file__).resolve().parents[2] / "Makefile"
    return subprocess.check_output(["make", "-n", "-f", makefile, *words], text=True)


@pytest.mark.parametrize("figure", ["figure4", "figure6"])
@pytest.mark.parametrize("collate", [[], ["COLLATE=only"]])
def test_make_lists_profiles_and_draws_no_figure_in_a_dry_run(figure, collate):
    said = made(figure, "DRY=1", *collate)
    assert said.count("--dry-run") == said.count("--scale reduced") == 2 and "scripts.figures" not in said
    assert made(figure, "SCALE=paper").count("--scale paper --missing") == 2


def test_make_measures_nothing_where_it_is_to_collate_only():
    said = made("figure4", "COLLATE=only")
    assert "scripts.profile_layers" not in said and "scripts.figures 4" in said
    assert made("figures", "COLLATE=only", "DRY=1").count("--dry-run") == 8


@pytest.mark.parametrize("target", ["report", "figures"])
@pytest.mark.parametrize("trains", [True, False])
def test_make_runs_what_is_lacking_unless_it_is_to_collate_only(target, trains):
    said = made(target, *["COLLATE=only"][trains:])
    for figure in ("figure1", "figure2", "figure3", "figure5"):
        assert (f"scripts.tables {figure}" in said) == trains
    assert said.count("scripts.profile_layers") == 4 * trains and f"scripts.{target}" in said


def test_layers_are_timed_at_the_ratios_that_a_run_chose(tmp_path):
    """A real run of ResNet-18 whose last stack is low-rank; both parts of a transformer's block together."""
    run_config(little_config(tmp_path / "run", "cuttlefish", method__k=13, method__switch_epoch=2))
    words = "layers --model resnet18 --width 8 --batch 2 --zeta 2 --repeats 2 --device cpu --ratios 0.5"
    assert main([*words.split(), "--out", str(tmp_path / "bench"), "--run", str(tmp_path / "run")]) == 0
    (bench,) = load_benches(tmp_path / "bench")
    chosen = chosen_by(str(tmp_path / "run"))
    assert bench.facts["chosen_by"] == chosen.facts() and chosen.model == "resnet18"
    rows = [row for row in bench.rows if "chosen_s" in row]
    assert {row["layer"]: row["chosen"][row["layer"]] for row in rows} == chosen.ratios and len(rows) == 4
    assert all(len(row["chosen_s"]) == 2 and len(row["low_s"]) == 1 for row in rows)
    assert all(name.startswith("layer4.") and 0 < ratio <= 1 for name, ratio in chosen.ratios.items())


def test_a_sub_block_is_timed_at_its_layers_own_ratios():
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=10)
    own = {"blocks.0.mlp.fc1": 0.25, "blocks.0.mlp.fc2": 0.5}
    rows, _ = profile_layers(model, CONDITIONS, [0.5], 1, chosen=own)
    assert [(row["layer"], row["chosen"]) for row in rows if "chosen" in row] == [("blocks.0.mlp", own)]


def test_a_run_of_other_layers_or_without_ranks_is_refused(tmp_path, capsys):
    run_config(little_config(tmp_path / "dense"))
    words = ["layers", "--model", "vgg19", "--device", "cpu", "--batch", "2", "--out", str(tmp_path), "--run"]
    assert main([*words, str(tmp_path / "dense")]) == 2
    assert "has no factorized layer" in capsys.readouterr().err
    run_config(little_config(tmp_path / "low", "cuttlefish", method__k=13, method__switch_epoch=2))
    assert main([*words, str(tmp_path / "low")]) == 2
    told = "a run of resnet18, none of whose layers (layer4.0.conv1, …) is one of vgg19"
    assert told in capsys.readouterr().err
    assert main(["stacks", *words[1:], str(tmp_path / "low")]) == 2
