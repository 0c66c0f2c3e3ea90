"""Little sweeps through the front door, as a user starts them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cuttlefish.record.fields import Record
from cuttlefish.record.record import read_record

ROOT = Path(__file__).resolve().parents[2]
LITTLE = (
    "model=resnet18 model.width=8 data=synthetic data.image_size=12 data.classes=4 data.train_images=32 "
    "data.test_images=16 recipe.epochs=2 recipe.batch_size=16 recipe.schedule.warmup_epochs=1 logger=quiet "
    "trainer.device=cpu trainer.threads=1"
).split()
ONE_FAILS = "recipe.schedule.peak_lr=0.05,1e30"


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def words_of(folder: Path, launcher: str, *words: str) -> list[str]:
    """Words of a sweep with the launcher, of little runs below `folder`."""
    return ["-m", f"hydra/launcher={launcher}", f"runs_root={folder / 'runs'}", *LITTLE, *words]


def front_door(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run run.py, started in `folder`."""
    start, told = [sys.executable, str(ROOT / "run.py")], environment(**variables)
    return subprocess.run(
        [*start, *words], cwd=folder, env=told, capture_output=True, text=True, timeout=400, check=False
    )


def sweep(folder: Path, launcher: str, *words: str) -> subprocess.CompletedProcess[str]:
    return front_door(folder, *words_of(folder, launcher, *words))


def needs(launcher: str) -> None:
    name = f"hydra_{launcher}_launcher"
    pytest.importorskip(f"hydra_plugins.{name}", reason=f"{name.replace('_', '-')} is not installed")


def records(folder: Path) -> list[Record]:
    return [read_record(path) for path in sorted(folder.glob("runs/*/*/record.json"))]


def told(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("cuttlefish: ")]


def check_one_of_two_fails(folder: Path, launcher: str, *words: str) -> None:
    """One run finishes and one diverges; the same command again skips the one and tries the other."""
    done = sweep(folder, launcher, ONE_FAILS, *words)
    failed, total = told(done)[-2:]
    assert done.returncode == 2, done.stderr
    assert "ConfigStore" not in done.stderr, "Hydra's advice on our own files helps no user"
    assert failed.startswith("cuttlefish: ") and "peak_lr=1e+30: the loss became" in failed, done.stderr
    assert total.startswith("cuttlefish: 2 runs: 1 finished, 1 failed (") and "peak_lr=1e+30" in total
    assert sorted(record.status for record in records(folder)) == ["failed", "finished"]
    assert all("the loss became" in record.error for record in records(folder) if record.status == "failed")
    again = sweep(folder, launcher, ONE_FAILS, *words)
    assert again.returncode == 2
    summary = "cuttlefish: 2 runs: 1 skipped (finished before), 1 failed ("
    assert told(again)[-1].startswith(summary), again.stderr
    assert not list(folder.glob("runs/.hydra/outcomes/*")), "the notes were read and removed"
