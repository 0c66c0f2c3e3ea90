import platform
import re
import socket
import sys
from importlib.metadata import version

import pytest
import torch

from cuttlefish.record import provenance as origin
from cuttlefish.record.problems import type_problems
from cuttlefish.record.provenance import (
    command_line,
    device_name,
    git_commit,
    git_dirty,
    package_versions,
    provenance,
)
from tests.helpers.repository import git


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "code.py").write_text("a = 1\n")
    (tmp_path / "results").mkdir()
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_the_commit_is_that_of_the_source_tree(repository):
    assert git_commit(repository / "package") == git(repository, "rev-parse", "HEAD")
    assert git_dirty(repository / "package") is False


@pytest.mark.parametrize("path, dirty", [("package/code.py", True), ("package/new.py", True), ("conf.yaml", True),
                                         ("results/record.json", False), ("notes.md", False)])  # fmt: skip
def test_only_what_can_change_a_result_makes_the_tree_dirty(repository, path, dirty):
    (repository / path).write_text("changed\n")
    assert git_dirty(repository / "package") is dirty


def test_an_unrelated_repository_around_the_package_is_not_its_origin(repository):
    installed = repository / "venv" / "site-packages" / "cuttlefish"
    installed.mkdir(parents=True)
    (installed / "code.py").write_text("")
    assert git_commit(installed) is None and git_dirty(installed) is None


def test_without_git_or_repository_there_is_no_commit(repository, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert git_commit(elsewhere) is None
    monkeypatch.setenv("PATH", str(elsewhere))
    assert git_commit(repository / "package") is None and git_dirty(repository / "package") is None


def test_a_hooks_environment_does_not_mislead(repository, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("other")
    git(other, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert git_commit(repository / "package") == git(repository, "rev-parse", "HEAD")


def test_package_versions_are_the_installed_ones():
    found = package_versions()
    assert found["torch"] == version("torch") and found["numpy"] == version("numpy")
    assert package_versions(["no-such-package"]) == {}


def test_the_cpu_is_named_with_the_cores_computed_on(tmp_path, monkeypatch):
    assert device_name("cpu", 2).endswith(", 2 cores") and device_name("cpu", 1).endswith(", 1 core")
    cores = origin.available_cores()
    assert device_name("cpu").endswith(f", {cores} core" + "s" * (cores > 1))
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: AMD  EPYC 7B13\n")
    assert origin._cpu_model(cpuinfo) == "AMD EPYC 7B13"
    cpuinfo.write_text("processor\t: 0\n")
    assert origin._cpu_model(cpuinfo) == (platform.processor() or platform.machine())


def test_a_gpu_is_named_by_torch(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")
    assert device_name("cuda:1") == "GPU of cuda:1"


def test_the_command_is_what_one_would_type():
    words = "/home/ann/suite/run.py model=vgg19 seed=0,1 data.root=/home/ann/data logger.token=t0psecret"
    shown = command_line([*words.split(), "x=[a, b]"])
    assert shown == "python run.py model=vgg19 seed=0,1 data.root=.../data logger.token=REDACTED 'x=[a, b]'"
    shown = command_line(["/x/cuttlefish/worker.py", "resolved.yaml"], "cuttlefish.worker")
    assert shown == "python -m cuttlefish.worker resolved.yaml"


def test_fields_fit_the_record_and_give_neither_host_nor_environment_away(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "annslaptop")
    monkeypatch.setenv("SOME_VARIABLE", "n0body-should-see")
    monkeypatch.setattr(sys, "argv", ["run.py", "seed=1"])
    monkeypatch.setattr(origin, "main_module", lambda: None)
    fields = provenance("cpu", 2)
    for name, value in fields.items():
        assert type_problems({"schema": 1, name: value}) == []
    assert fields["command"] == "python run.py seed=1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", fields["started"])
    text = repr(fields)
    assert "n0body" not in text and "annslaptop" not in text and platform.node() not in text.split()
