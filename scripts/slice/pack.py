"""Pack files for a borrowed machine: missing wheels, the configs of the runs, CIFAR-10 in two parts.

Besides the large runs these are the reduced scale's registered runs that have no record yet, in their order
of value; those whose size another run sets come after all that may set it.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cuttlefish.config.compose import compose_config
from cuttlefish.config.schema import DataConfig
from cuttlefish.config.validate import to_dict
from cuttlefish.evidence.records import load_evidence
from cuttlefish.planning.execute import in_order_of_value
from cuttlefish.planning.planned_run import PlannedRun
from cuttlefish.planning.runs import planned_runs
from cuttlefish.planning.spec import read_spec
from cuttlefish.planning.state import Known, State, state_of
from cuttlefish.record.atomic import write_atomic
from cuttlefish.record.provenance import git_commit, git_dirty
from cuttlefish.report.paper import PAPER, TABLES
from cuttlefish.tasks.files import data_folder
from cuttlefish.tasks.registry import data_set
from scripts.records import records_of
from scripts.slice.cifar import pack_files

WHEELS = (
    "pydantic", "pydantic-core", "annotated-types", "typing-inspection", "typing-extensions", "rich",
    "markdown-it-py", "mdurl", "execnet", "pytest-xdist",
)  # fmt: skip
"""What the worker, benches and tests/gpu import beyond what a machine with PyTorch usually has."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64")
CELL = ("experiment=table1", "model=resnet18", "data=cifar10", "preset=reference", "seed=0", "logger=quiet")
RUNS = {
    "cuttlefish-bf16": ("method=cuttlefish", "trainer=gpu"),
    "full-rank-bf16": ("method=full_rank", "preset=default", "method.track_ranks=true", "trainer=gpu"),
    "full-rank-fp32": (
        "method=full_rank",
        "preset=default",
        "method.track_ranks=true",
        "trainer.device=cuda",
        "trainer.checkpoint_minutes=1",
    ),
    "cuttlefish-fp32": ("method=cuttlefish", "trainer.device=cuda", "trainer.checkpoint_minutes=1"),
}
"""ResNet-18 on CIFAR-10 at the paper's scale, in order of value."""
SMALL = "small"
"""Folder of the reduced runs' configs."""
TOY = (
    "data=synthetic", "data.train_images=64", "data.test_images=16", "model.width=8", "recipe.epochs=3",
    "recipe.batch_size=16", "trainer=default", "trainer.device=cpu", "scale=free",
)  # fmt: skip
TOY_CUTTLEFISH = ("method.k=1", "method.switch_epoch=2", "method.stability=scale_free")


def write_configs(folder: Path, conf: Path, toy: bool = False) -> None:
    """Write the resolved config of every run as JSON, for a machine without Hydra and a YAML reader."""
    for name, words in RUNS.items():
        all_words = list(CELL)
        for word in words:  # a later choice of a group replaces the cell's
            all_words = [*(old for old in all_words if old.split("=")[0] != word.split("=")[0]), word]
        if toy:
            more = [*TOY, *(TOY_CUTTLEFISH if "method=cuttlefish" in words else ())]
            replaced = {word.split("=")[0] for word in more}
            all_words = [*(old for old in all_words if old.split("=")[0] not in replaced), *more]
        config = to_dict(compose_config(conf, all_words))
        write_atomic(folder / f"{name}.json", json.dumps(config, indent=1) + "\n")


def missing_runs(root: Path) -> list[PlannedRun]:
    """Return the reduced runs on CIFAR-10 that the order of value names and no record holds."""
    spec, seeds = read_spec(PAPER / TABLES), range(5)
    scale = spec.scale("reduced")
    named = {place for block in scale.order for place in block.places()}
    names = list(dict.fromkeys(block.table for block in scale.order))
    known = Known.of(load_evidence(records_of("reduced", root / "results")).runs, root)
    runs = in_order_of_value(planned_runs(spec, names, "reduced", seeds, root), scale.order)
    states = {
        run: state_of(run, known)
        for run in runs
        if run.data == "cifar10" and (run.table, run.seed, *run.choices("data", "model"), run.row) in named
    }
    left = [run for run, state in states.items() if state is not State.FINISHED]
    return sorted(left, key=lambda run: states[run] is State.WAITS)


def write_missing(folder: Path, root: Path) -> None:
    """Write the resolved config of every missing run, numbered in the order of the runs."""
    for number, run in enumerate(missing_runs(root)):
        config = compose_config(root / "conf", [*run.words, "trainer.device=cuda", "logger=quiet"])
        name = f"{number:03}-{run.row}-{run.model}-{run.seed}-{run.run_key}"
        write_atomic(folder / f"{name}.json", json.dumps(to_dict(config), indent=1) + "\n")


def pack(dest: Path, root: Path, wheels: Sequence[str] = WHEELS) -> None:
    """Fill `dest`/1 (with the first command) and `dest`/2 (with the second)."""
    first, second = dest / "1", dest / "2"
    write_configs(first / "configs", root / "conf")
    write_missing(first / "configs" / SMALL, root)
    write_atomic(first / "commit", f"{git_commit()}{'-dirty' if git_dirty() else ''}\n")
    if wheels:
        _download(wheels, first / "wheels")
    config = DataConfig(name="cifar10", kind="cifar10")
    folder, names = data_folder(config), list(data_set(config).files.md5)
    second.mkdir(parents=True, exist_ok=True)
    for part, some in ((first, names[:3]), (second, names[3:])):
        pack_files([folder / name for name in some], part / "cifar10.zip")


def _download(wheels: Sequence[str], folder: Path) -> None:
    """Download for CPython 3.12 on 64-bit Linux, in the versions installed here."""
    from importlib.metadata import version

    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version=3.12", "--implementation=cp", *(f"--platform={name}" for name in PLATFORMS)]
    names = [f"{name}=={version(name)}" for name in wheels]
    subprocess.run([*command, f"--dest={folder}", *names], check=True)
