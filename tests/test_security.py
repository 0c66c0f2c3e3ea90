"""Nothing that a stranger could have written is executed: no pickle, import path, class or shell command."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cuttlefish.config.validate import load_config, to_dict
from cuttlefish.errors import CuttlefishError
from cuttlefish.worker import main, run_config
from tests.helpers.mappings import with_value
from tests.helpers.runs import little_config

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [
    ROOT / "run.py",
    *(
        path
        for room in ("cuttlefish", "baselines", "scripts")
        for path in sorted((ROOT / room).rglob("*.py"))
    ),
]

RUNS_CODE = set(
    "eval exec compile __import__ os.system os.popen pickle.load pickle.loads dill.load joblib.load marshal.loads "
    "shelve.open pandas.read_pickle pd.read_pickle torch.hub.load yaml.unsafe_load yaml.full_load instantiate "
    "hydra.utils.instantiate get_class get_method get_object runpy.run_path locate".split()
)
"""Calls with which data becomes code."""
UNPACKS = {"extractall", "extract", "unpack_archive"}
"""They write wherever the archive says."""
WHEELS = {"scripts/gpu_slice.py": "wheels that pip fetched, by zipfile, which writes below its folder only"}
BY_NAME = {
    "cuttlefish/__init__.py": "the package's own table",
    "cuttlefish/tasks/registry.py": "the modules in a folder of ours",
    "cuttlefish/methods/__init__.py": "names without dots, in two packages of ours",
    "cuttlefish/models/encoders.py": "transformers, a module of it, or tokenizers",
    "cuttlefish/models/libraries.py": "timm or torchvision",
}
"""The files that import what a name says, and what holds that name in bounds."""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def given(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == name), None)


def offences(path: Path) -> Iterator[str]:
    for name, call in calls(path):
        where, last = f"{path.relative_to(ROOT)}:{call.lineno}", name.split(".")[-1]
        if name in RUNS_CODE:
            yield f"{where} calls {name}"
        if last in UNPACKS and given(call, "filter") != "'data'" and where.split(":")[0] not in WHEELS:
            yield f"{where} unpacks by {name}"
        if given(call, "shell") not in (None, "False"):
            yield f"{where} opens a shell"
        if name == "torch.load" and given(call, "weights_only") != "True":
            yield f"{where} unpickles freely"
        if name in ("np.load", "numpy.load") and given(call, "allow_pickle") not in (None, "False"):
            yield f"{where} unpickles freely"
        if name == "yaml.load" and "SafeLoader" not in (given(call, "Loader") or ""):
            yield f"{where} reads YAML that may name Python objects"
        if last == "get_state_dict" and (given(call, "weights_only"), given(call, "check_hash")) != (
            "True",
            "True",
        ):
            yield f"{where} takes weights unchecked"
        if (
            last == "import_module"
            and not isinstance(call.args[0], ast.Constant)
            and str(path.relative_to(ROOT)) not in BY_NAME
        ):
            yield f"{where} imports what a value names"


def test_nothing_in_the_source_turns_data_into_code():
    assert len(SOURCES) > 100
    assert [offence for path in SOURCES for offence in offences(path)] == []


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)", "torch.load(path, weights_only=False)", "pickle.loads(content)", "eval(word)",
        "yaml.load(text, Loader=yaml.Loader)", "subprocess.run(command, shell=True)",
        "archive.extractall(folder)", "np.load(path, allow_pickle=True)", "import_module(config.name)",
        "hydra.utils.instantiate(config)", "weights.get_state_dict(check_hash=True)",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_is_for(line, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "bad.py"
    path.write_text(line)
    assert len(list(offences(path))) == 1


def config_with(key: str, value: object) -> dict:
    return with_value(to_dict(little_config(Path("never"))), key, value)


@pytest.mark.parametrize("section", ["", "model.", "data.", "recipe.optimizer.", "logger.wandb.", "method."])
def test_a_target_in_a_config_is_an_unknown_key(section, tmp_path, monkeypatch, capsys):
    """Through the worker, which a bundle or a record's config reaches without the front door."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "resolved.yaml"
    path.write_text(yaml.safe_dump(config_with(f"{section}_target_", "os.system")))
    assert main([str(path)]) == 2
    assert "_target_" in capsys.readouterr().err
    assert [item.name for item in tmp_path.iterdir()] == ["resolved.yaml"]


PAYLOAD = "from pathlib import Path\nPath(__file__).with_name('owned').touch()\nname = 'payload'\n"


@pytest.mark.parametrize("key", ["method.name", "model.name", "model.source", "data.kind"])
@pytest.mark.parametrize("value", ["payload", "..payload", "scripts.payload", "/payload", "../payload"])
def test_a_name_in_a_config_imports_nothing_but_ours(key, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "payload.py").write_text(PAYLOAD)
    with pytest.raises(CuttlefishError):
        run_config(load_config({**config_with(key, value), "run_dir": str(tmp_path / "run")}))
    assert sorted(item.name for item in tmp_path.iterdir()) == ["payload.py"]


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.system ['touch owned']", "seed: !!python/name:os.system ''"]
)
def test_yaml_names_no_python(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resolved.yaml").write_text(text)
    assert main(["resolved.yaml"]) == 2
    assert "cannot read" in capsys.readouterr().err and not (tmp_path / "owned").exists()


def test_no_secret_of_the_environment_reaches_a_run_s_folder(tmp_path, monkeypatch):
    """Not into record, log, config, rows or W&B's files: searched byte by byte."""
    secrets = {
        "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
        "HF_TOKEN": "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
        "MY_PASSWORD": "correct-horse-battery",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["run.py", "model=resnet18", f"+logger.token={secrets['HF_TOKEN']}"])
    pytest.importorskip("wandb", reason="wandb is not installed")
    run_config(
        little_config(
            tmp_path / "run",
            recipe__epochs=1,
            recipe__schedule__warmup_epochs=0,
            logger__wandb={"mode": "offline"},
        )
    )
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in written) and (tmp_path / "run" / "record.json") in written
    for path in written:
        content = path.read_bytes()
        assert not [name for name, value in secrets.items() if value.encode() in content], path
