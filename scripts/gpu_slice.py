"""Use a few minutes of a borrowed GPU in order of value, as described in docs/gpu.md.

    python -m scripts.gpu_slice pack DEST                       on a machine with a network: fill DEST
    python -m scripts.gpu_slice run --packed DEST --back BACK   on the GPU: results under --out, and in BACK
    python -m scripts.gpu_slice import BACK                     back here: runs and benches into results/

`run` needs only Python's own library; its steps may import wheels from DEST besides PyTorch.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

from cuttlefish.record.atomic import write_atomic
from scripts.command import new_parser
from scripts.slice.back import import_back, pack_back, unpack_back
from scripts.slice.runner import Step, run_steps

ROOT = Path(__file__).resolve().parents[1]
TRAINED = {"cuttlefish-bf16": 240, "full-rank-bf16": 240, "full-rank-fp32": 90, "cuttlefish-fp32": 300}
"""Seconds each run may take in one slice, in order of value."""
JOBS, SMALL_RUNS = 10, 300
"""Reduced runs at once, which leave most of a GPU idle, and seconds for all of them in one slice."""


def steps(out: Path, device: str) -> list[Step]:
    """Return all steps of a slice, the most valuable first."""
    toy, at = device == "cpu", f"--device {device} --out"
    tests = ["-k", "core or full_rank and not two"] if toy else ["-n", "14"]
    size = "--repeats 1 --width 8 --batch 8 --zeta 3" if toy else "--repeats 3"
    pytest = _module("pytest", "tests/gpu -v --no-header -p no:cacheprovider -m", "gpu and not slow", *tests)
    profiles = []
    for name in ("resnet18", "vgg19"):
        words = f"stacks --missing --model {name} {size} {at}"
        command = _module("scripts.profile_layers", words, out / "bench")
        profiles.append(Step(f"profile-{name}", command, 40))
    runs = {name: _training(out, name, limit, toy) for name, limit in TRAINED.items()}
    slow = "takes minutes on a CPU" if toy else ""
    found = [
        _measure("ceilings", at, out, 30),
        Step(
            "gpu-tests", pytest, 75, environment={"CUTTLEFISH_GPU_TESTS_ON": device, "OMP_NUM_THREADS": "1"}
        ),
        _measure("steps", at, out, 120),
        Step("ranks", _module("scripts.bench", f"ranks --rounds 3 {at}", out / "bench"), 30, why_not=slow),
        *profiles,
        _measure("data", at, out, 20),
        _measure("models", at, out, 90),
        *(step for name, step in runs.items() if name.endswith("bf16")),
        _small_runs(out, toy),
        _measure("compile", at, out, 300, slow),
        *(step for name, step in runs.items() if name.endswith("fp32")),
    ]
    return [replace(step, limit=5 * step.limit) for step in found] if toy else found  # CPUs are shared


def _module(name: str, words: str, *more: str | Path) -> list[str]:
    return [sys.executable, "-m", name, *words.split(), *map(str, more)]


def _measure(what: str, at: str, out: Path, limit: float, why_not: str = "") -> Step:
    least = 60.0 if what == "compile" else 5.0  # an arm that is cut off leaves nothing
    return Step(what, _module("scripts.slice.measures", f"{what} {at}", out), limit, least, why_not)


def _training(out: Path, name: str, limit: float, toy: bool) -> Step:
    config = out / "configs" / f"{name}.json"
    return Step(f"train-{name}", _module("cuttlefish.worker", "", config), limit, 20, _lacking(toy))


def _small_runs(out: Path, toy: bool) -> Step:
    """Return the step that trains the reduced scale's missing runs, as far as `pack` gave any."""
    configs = out / "configs" / "small"
    lacking = _lacking(toy) or ("" if configs.is_dir() else "there are none, or `pack` was not called")
    jobs = 2 if toy else JOBS
    return Step(
        "small-runs", _module("scripts.slice.pool", f"--jobs {jobs}", configs), SMALL_RUNS, 30, lacking
    )


def _lacking(toy: bool) -> str:
    there = Path(os.environ["CUTTLEFISH_DATA"]) / "cifar-10-batches-py"
    return "" if toy or len(list(there.glob("*_batch*"))) == 6 else f"CIFAR-10 is not whole in {there}"


def prepare(out: Path, packed: Path | None, device: str) -> dict[str, str]:
    """Unpack `packed`, write the configs with their run folders; return the steps' environment."""
    site, data = out / "site", Path(os.environ.get("CUTTLEFISH_DATA") or out / "data")
    os.environ["CUTTLEFISH_DATA"] = str(data.absolute())
    parts = [packed / name for name in ("1", "2")] if packed else []
    for wheel in sorted(wheel for part in parts for wheel in part.glob("wheels/*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(site)]), "PYTHONUNBUFFERED": "1"}
    if device == "cpu":
        environment["OMP_NUM_THREADS"] = "1"
    sys.path.insert(0, str(site))
    for part in parts:
        if (part / "commit").exists():  # the code without its repository
            environment["CUTTLEFISH_COMMIT"] = (part / "commit").read_text(encoding="utf-8").strip()
        if (part / "cifar10.zip").exists():
            from cuttlefish.tasks.sets.torchvision_sets import DATA_SETS
            from scripts.slice.cifar import unpack_files

            files = DATA_SETS["cifar10"].files
            unpack_files(part / "cifar10.zip", data / files.folder, dict(files.md5))
    source = next((part / "configs" for part in parts if (part / "configs").exists()), None)
    if source is None and not (out / "configs").exists():
        from scripts.slice.pack import write_configs

        write_configs(out / "configs", ROOT / "conf", toy=device == "cpu")
    configs = source or out / "configs"
    for path in sorted(configs.rglob("*.json")):
        config = json.loads(path.read_text(encoding="utf-8")) | {"run_dir": str(out / "runs" / path.stem)}
        write_atomic(out / "configs" / path.relative_to(configs), json.dumps(config, indent=1) + "\n")
    return environment


def run(options: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # also ends the running step
    out = options.out.absolute()
    if options.go_on and not (out / "steps").exists():
        unpack_back(options.go_on, out)
    environment = prepare(out, options.packed, options.device)
    back = options.back or out.with_name(f"{out.name}-back")
    results = run_steps(
        steps(out, options.device), out, 60 * options.minutes, cwd=ROOT, environment=environment,
        after=lambda: pack_back(out, back),
    )  # fmt: skip
    for left_out in pack_back(out, back)["left_out"]:
        print(f"not packed: {left_out}")
    print(f"what comes back is in {back}")
    return 0 if all(result["status"] in ("done", "skipped") for result in results) else 1


def main(arguments: list[str] | None = None) -> int:
    parser = new_parser("gpu_slice", __doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    runs = actions.add_parser("run")
    runs.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu-slice")
    runs.add_argument("--minutes", type=float, default=8.0)
    runs.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: everything at toy size")
    runs.add_argument("--packed", type=Path, help="the folder that `pack` filled")
    runs.add_argument("--back", type=Path, help="where to pack what comes back (beside --out by default)")
    runs.add_argument("--go-on", type=Path, help="what came back of an earlier slice, on a new machine")
    actions.add_parser("pack").add_argument("dest", type=Path)
    imports = actions.add_parser("import")
    imports.add_argument("back", type=Path)
    imports.add_argument("--results", type=Path, default=ROOT / "results")
    options = parser.parse_args(arguments)
    if options.action == "run":
        return run(options)
    if options.action == "pack":
        from scripts.slice.pack import pack

        pack(options.dest, ROOT)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        unpack_back(options.back, Path(folder))
        for line in import_back(Path(folder), options.results):
            print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
