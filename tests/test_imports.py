"""Imports point one way: run.py → worker → engine → methods → lowrank → torch; records and reports know no trainer."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cuttlefish.record import read_record
from cuttlefish.validate import to_dict
from tests.runs import little_config

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ["errors", "lowrank"]
FACTS = ["errors", "config", "nearest", "checks", "validate", "files", "redact", "record_fields", "run_folder", "record"]
ALLOWED = {
    "lowrank": LIBRARY,
    "auto": [*LIBRARY, "settings"],
    "settings": ["errors"],
    "schedule": ["config"],
    "data": [*FACTS, "data"],
    "models": [*FACTS, "models", "nearest"],
    "methods": [*FACTS, *LIBRARY, "auto", "settings", "schedule", "methods"],
    "baselines": [*FACTS, *LIBRARY, "auto", "settings", "schedule", "methods", "baselines"],
    "record": FACTS,
    "provenance": ["redact"],
    "signals": ["errors"],
    "child": ["signals"],
    "report": [*FACTS, "identity", "report", "lowrank"],
    "plan": [*FACTS, "data", "identity", "compose", "methods", "provenance", "report", "signals", "child", "plan"],
    "sinks": [*FACTS, "report", "sinks", "provenance"],
}
"""Room → what of the project it may import."""


def imports_of(path: Path) -> set[str]:
    """The project's rooms that a file imports, at any depth of it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module in ("cuttlefish", "baselines") else [node.module or ""]
        for name in names:
            head, _, rest = name.partition(".")
            if head == "cuttlefish" and rest:
                found.add(rest.split(".")[0])
            elif head in ("baselines", "scripts", "run"):
                found.add(head)
    return found


def files_of(room: str) -> list[Path]:
    base = ROOT / room if room == "baselines" else ROOT / "cuttlefish" / room
    return [base.with_suffix(".py")] if base.with_suffix(".py").exists() else sorted(base.rglob("*.py"))


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_only_what_is_below_them(room):
    assert files_of(room)
    for path in files_of(room):
        beyond = imports_of(path) - set(ALLOWED[room])
        assert not beyond, f"{path.relative_to(ROOT)} imports {', '.join(sorted(beyond))}"


def test_only_compose_and_the_launcher_know_hydra():
    for path in (ROOT / "cuttlefish").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        uses = any(line.split()[:2][1].split(".")[0] in ("hydra", "omegaconf") for line in text.splitlines() if line.startswith(("import ", "from ")))
        assert not uses or path.name == "compose.py" or path.parent.name == "hydra_plugins", path


def test_no_method_is_named_outside_its_own_files():
    """No if-chain over methods in the trainer, the data or the sinks."""
    names = [path.stem for path in (ROOT / "conf" / "method").glob("*.yaml") if path.stem not in ("full_rank", "cuttlefish")]
    for room in ("engine", "data", "sinks", "models", "lowrank"):
        for path in (ROOT / "cuttlefish" / room).rglob("*.py"):
            strings = {node.value for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Constant)}
            assert not strings & set(names), path


def test_torch_is_not_needed_to_read_configs_and_records():
    modules = "cuttlefish, cuttlefish.config, cuttlefish.identity, cuttlefish.data.files, cuttlefish.record, cuttlefish.validate"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_worker_trains_on_a_machine_with_torch_only(tmp_path):
    """Every other package of the suite is made unimportable; the config is JSON, since PyYAML is gone too."""
    config = to_dict(little_config(tmp_path / "run", "cuttlefish", recipe__epochs=3, sink__console=True))
    (tmp_path / "resolved.json").write_text(json.dumps(config))
    missing = "hydra omegaconf wandb yaml rich matplotlib pandas sklearn timm torchvision safetensors scipy PIL"
    code = (
        f"import sys\nfor name in '{missing}'.split(): sys.modules[name] = None\n"
        "from cuttlefish.worker import main\nsys.exit(main(sys.argv[1:]))"
    )
    for _ in range(2):  # trained, then found to be finished
        result = subprocess.run([sys.executable, "-c", code, str(tmp_path / "resolved.json")], cwd=ROOT, check=False, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    assert "already finished" in result.stdout
    record = read_record(tmp_path / "run")
    assert record["status"] == "finished" and record["switch_epoch"] == 2
