"""The patch of docs/library.md turns timm's own training script into one that switches and resumes."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm import create_model

from cuttlefish import Cuttlefish
from cuttlefish.lowrank.find import low_rank_layers

ROOT = Path(__file__).resolve().parents[2]
PATCH = re.search(r"```diff\n(.*?)```", (ROOT / "docs/library.md").read_text("utf-8"), flags=re.DOTALL)[1]
ARGUMENTS = (
    "--data-dir data --val-split validation --model test_vit --model-kwargs img_size=32 --input-size 3 32 32 "
    "--num-classes 3 --epochs 3 --batch-size 8 --opt adamw --lr 1e-3 --warmup-epochs 0 --device cpu -j 0 "
    "--no-prefetcher --model-ema --model-ema-decay 0.9 --clip-grad 1.0 --output . --log-interval 100"
).split()


def test_the_patch_adds_at_most_ten_lines():
    changed = [line for line in PATCH.splitlines() if re.match(r"[+-](?!\+\+ |-- )", line)]
    assert 0 < len(changed) <= 10 and all(line.startswith("+") for line in changed)


def network():
    return create_model("test_vit", num_classes=3, img_size=32)


def train(folder, name, *more):
    command = [sys.executable, "train.py", *ARGUMENTS, "--experiment", name, *more]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = list(csv.DictReader((folder / name / "summary.csv").open()))
    return [row["epoch"] for row in rows], done.stderr


@pytest.mark.slow
def test_timm_s_script_switches_and_resumes(tmp_path):
    script = os.environ.get("CUTTLEFISH_TIMM_TRAIN")
    if script is None:
        pytest.skip("CUTTLEFISH_TIMM_TRAIN does not name timm's train.py (its wheel has none)")
    for split, count in (("train", 8), ("validation", 2)):
        for index in range(3 * count):
            path = tmp_path / "data" / split / f"class{index % 3}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((40, 40, 3), 80 * (index % 3), "uint8")).save(path)
    (tmp_path / "train.py").write_bytes(Path(script).read_bytes())
    apart = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    subprocess.run(["git", "apply", "-"], input=PATCH, cwd=tmp_path, env=apart, text=True, check=True)
    patched = (tmp_path / "train.py").read_text("utf-8")
    knobs = "state=saved, k=1, switch_epoch=2, rank_ratio=0.25"
    (tmp_path / "train.py").write_text(patched.replace("state=saved", knobs), "utf-8")

    epochs, told = train(tmp_path, "whole")
    assert epochs == ["0", "1", "2"] and "low-rank from epoch 2 on" in told
    for switched, epoch in ((False, 0), (True, 1)):
        saved = tmp_path / "whole" / f"checkpoint-{epoch}.pth.tar"
        checkpoint = torch.load(saved, weights_only=False)
        model = Cuttlefish.resume(network, checkpoint["args"].cuttlefish).model
        assert bool(low_rank_layers(model)) == switched
        for weights in ("state_dict", "state_dict_ema"):
            model.load_state_dict(checkpoint[weights])
        rest, told = train(tmp_path, f"from{epoch}", "--resume", str(saved))
        assert rest == [str(later) for later in range(epoch + 1, 3)]
        assert ("low-rank from epoch 2 on" in told) != switched
