"""What import contracts cannot say: which methods are named where, and what runs without which package."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

from cuttlefish.config.validate import to_dict
from cuttlefish.record.record import read_record
from tests.helpers.runs import little_config

ROOT = Path(__file__).resolve().parent.parent


AMBIGUOUS = ("full_rank", "cuttlefish")
"""Methods whose names are also a function's and the package's."""


def test_no_method_is_named_outside_its_own_files():
    """No if-chain over methods and no table of them: what is particular to one is asked of it."""
    names = [path.stem for path in (ROOT / "conf" / "method").glob("*.yaml") if path.stem not in AMBIGUOUS]
    named = re.compile(rf"\b({'|'.join(names)})\b")
    found = {
        str(path.relative_to(ROOT))
        for room in ("cuttlefish", "scripts")
        for path in (ROOT / room).rglob("*.py")
        if any(named.search(text) for text in strings(path)) and "methods" not in path.parts
    }
    assert not found


def strings(path):
    """The string constants of a module, without its docstrings."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    prose = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
    ]


def test_configs_records_and_the_face_of_loggers_need_nothing_heavy():
    modules = (
        "config.schema config.identity config.validate config.choice_checks config.choices config.suggest "
        "tasks.files record.record record.provenance loggers.base"
    )
    names = ", ".join(["cuttlefish", *(f"cuttlefish.{module}" for module in modules.split())])
    code = f"import sys, {names}; print(*{{'torch', 'hydra', 'omegaconf', 'matplotlib'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_every_methods_knobs_are_refused_without_torch():
    names = [path.stem for path in (ROOT / "conf" / "method").glob("*.yaml")]
    code = (
        "import sys\nfrom cuttlefish.errors import CuttlefishError\nfrom cuttlefish.methods import check_knobs\n"
        f"for name in {names}:\n"
        "    check_knobs({'name': name})\n"
        "    try: check_knobs({'name': name, 'nosuch': 1})\n"
        "    except CuttlefishError as error: assert 'nosuch' in str(error)\n"
        "    else: sys.exit(name)\n"
        "for name, key in {'cuttlefish': 'min_epoch', 'pufferfish': 'switch_epoch', 'eb': 'max_epoch',"
        " 'imp': 'rewind_epoch'}.items():\n"
        "    check_knobs({'name': name, key: 4}, 5)\n"
        "    try: check_knobs({'name': name, key: 5}, 5)\n"
        "    except CuttlefishError as error: assert f'method.{key}=5 lies outside' in str(error)\n"
        "    else: sys.exit(name)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


HEAVY = (
    "accelerate hydra lightning matplotlib omegaconf pandas PIL pydantic safetensors scipy sklearn sympy timm "
    "torch._dynamo torch._inductor torchvision transformers triton wandb yaml"
)


def test_the_library_imports_hardly_more_than_torch():
    code = (
        "import sys, torch; before = set(sys.modules); from cuttlefish import *\n"
        f"print(*sorted(set('{HEAVY}'.split()) & (set(sys.modules) - before)))\n"
        "net = torch.nn.Sequential(*[torch.nn.Linear(32, 32) for _ in range(4)])\n"
        "cf = Cuttlefish(net, torch.ones(2, 32), k=1, switch_epoch=1, rank_ratio=0.25)\n"
        "assert cf.epoch_end() and 'torch._dynamo' not in sys.modules, 'to look at a model needs no compiler'"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert not found.stdout.split()


def test_the_worker_trains_with_torch_and_pydantic_only(tmp_path):
    """Every other package of the suite is made unimportable; the config is JSON, since PyYAML is gone too."""
    config = to_dict(little_config(tmp_path / "run", "cuttlefish", recipe__epochs=3, logger__console=True))
    (tmp_path / "resolved.json").write_text(json.dumps(config))
    missing = (
        "hydra omegaconf wandb yaml rich matplotlib pandas sklearn timm torchvision safetensors scipy PIL"
    )
    code = (
        f"import sys\nfor name in '{missing}'.split(): sys.modules[name] = None\n"
        "from cuttlefish.worker import main\nsys.exit(main(sys.argv[1:]))"
    )
    for _ in range(2):  # trained, then found to be finished
        result = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "resolved.json")],
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
    assert "already finished" in result.stdout
    record = read_record(tmp_path / "run")
    assert record.status == "finished" and record.switch_epoch == 2
