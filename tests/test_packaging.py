"""The wheel, built, checked and used beside nothing but torch; the site of the docs."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

USE = """
import sys, torch
from torch import nn
sys.modules.update(dict.fromkeys(("hydra", "scipy", "pandas", "matplotlib", "timm", "pydantic", "yaml")))
import cuttlefish
assert "site" in cuttlefish.__file__, cuttlefish.__file__
model = nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 4))
cf = cuttlefish.Cuttlefish(model, torch.randn(4, 16), k=1, switch_epoch=1, rank_ratio=0.25)
assert cf.epoch_end() and cuttlefish.plan(model)["layers"]
"""


@pytest.mark.slow
def test_the_wheel_is_sound(tmp_path):
    for package in ("build", "twine"):
        pytest.importorskip(package)
    tree = tmp_path / "tree"  # building leaves files beside the sources
    shutil.copytree(ROOT / "cuttlefish", tree / "cuttlefish", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(tree)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,), (source,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(source)], check=True)
    assert wheel.name.startswith("cuttlefish_lowrank-") and tarfile.is_tarfile(source)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        found = {name.partition("/")[0].partition("-")[0] for name in names}
        assert found == {"cuttlefish", "cuttlefish_lowrank"}
        assert "cuttlefish/py.typed" in names and any(name.endswith("/licenses/LICENSE") for name in names)
        archive.extractall(tmp_path / "site")
    run = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n{USE}"]
    subprocess.run(run, check=True, cwd=tmp_path, env={"PYTHONPATH": ""})


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    for package in ("material", "mkdocstrings"):
        pytest.importorskip(package)
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    subprocess.run(build, check=True, cwd=ROOT)
    assert "epoch_end" in (tmp_path / "reference" / "index.html").read_text(encoding="utf-8")
