"""run.py: one sentence and an exit code for every mistake, and a sweep that goes on."""

import io
import os
import signal
import subprocess
import sys
from types import ModuleType

import pytest

from cuttlefish.config.schema import Config
from cuttlefish.errors import Busy, CuttlefishError, Interrupted, TakenOver
from cuttlefish.process.outcomes import Notes, made
from cuttlefish.process.signals import StopSignals
from cuttlefish.record.fields import Record
from cuttlefish.record.record import new_record
from cuttlefish.tasks.registry import data_set
from tests.helpers.sweeps import ROOT, environment, front_door


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """Runs run.py's main in this process with a stand-in for the worker; (exit code, stderr, the configs it
    was handed).
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.syspath_prepend(str(ROOT))
    import run

    monkeypatch.setattr(run, "data_digest", data_set)

    def call(*arguments: str, worker=lambda config: None) -> tuple[int, str, list[Config]]:
        handed: list[Config] = []

        def run_or_skip(config: Config, stop: StopSignals) -> tuple[str, Record]:
            handed.append(config)
            found = {"run_key": "0" * 12, "accuracy_final": float(config.seed), "params_total": 9}
            with stop:
                state = worker(config) or "finished"
                return state, new_record(state, **found)

        stand_in = ModuleType("cuttlefish.worker")
        stand_in.run_or_skip = run_or_skip
        monkeypatch.setitem(sys.modules, "cuttlefish.worker", stand_in)
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        code, captured = run.main(), capsys.readouterr()
        assert "Traceback" not in captured.out
        return code, captured.err, handed

    return call


def test_a_run_hands_its_resolved_config_to_the_worker(command, tmp_path):
    code, err, (config,) = command("model=vgg19", "method=cuttlefish", "preset=reference", "seed=3")
    assert (code, err) == (0, "")
    assert config.seed == 3 and config.method["preset"] == "reference" and config.method["extra_bn"] is True
    assert None not in config.method.values()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["model=resnet19"],
            "there is no model=resnet19 (choose from bert_base, bert_tiny, deit_base, deit_small, distilbert, hf, minilm, resmlp_s36, "
            "resnet18, resnet50, timm, tinybert, torchvision, vgg19, wide_resnet50_2, reduced/deit, reduced/resmlp, reduced/resnet50); did you mean resnet18?",
        ),
        (["seed=one"], "seed must be a whole number, not 'one'"),
        (["seed"], "cannot read 'seed' on the command line; write key=value"),
        (["model=5"], "take the name of one choice"),
        (
            ["method=lc", "method.alpha=1", "method.target_params=1000"],
            "method.alpha and method.target_params both set the size; give one of them",
        ),
        (
            ["method=si_fd", "method.rho=0.2", "method.match=x"],
            "method.rho and method.match both set the size",
        ),
        (
            ["method=cuttlefish", "method.preset=paper"],
            "method.preset=paper: method.preset is called preset now; write preset=paper",
        ),
        (["preset=paper"], "preset: full_rank has no preset paper (choose from default)"),
        (["sink=quiet"], "sink=quiet: sink is called logger now; write logger=quiet"),
        (["-m", "seed=0,1", "sink.wandb.mode=online"], "write logger.wandb.mode=online"),
        (["seed=${nothing}"], "seed: Interpolation key 'nothing' not found"),
        (["-m", "model=resnet18,resnet19"], "there is no model=resnet19"),
        (["-m", "seed=0,1", "--cfg", "job"], "--cfg and --info show one run; leave out -m"),
        (["-m", "seed=range(0,0)"], "seed=range(0,0): there is nothing in this range to sweep over"),
        (["-m", "model=resnet18,vgg19", "seed=shuffle(range(2,1))"], "there is nothing in this range"),
        (["-m", "data=glob(zz*)"], "the sweep has no runs: no name fits one of its patterns"),
        (["hydra.run.dir=here"], "hydra.run.dir=here: a run's folder is its own; choose it with run_dir=..."),
        (["preset=paper", "--cfg", "job"], "preset: full_rank has no preset paper"),
        (["hydra.job.chdir=True"], "choose where a run writes with run_dir=..."),
        (["preset=[reference]"], "preset must be one choice by name"),
        (["recipe=[[[1]]]"], "recipe must be one choice by name"),
        (["logger=[nan]"], "logger must be one choice by name"),
        (["method=[nan]"], "method must be one choice by name"),
        (["hydra.output_subdir=.hydra"], "a run's folder has its whole config in resolved.yaml"),
    ],
)
def test_a_mistake_ends_in_one_sentence(command, arguments, sentence):
    code, err, handed = command(*arguments)
    assert code == 2 and handed == []
    assert sentence in err and err.startswith("cuttlefish: ") and err.count("\n") == 1, err


def test_the_worker_s_refusal_is_one_sentence_too(command):
    def refuse(config: Config) -> None:
        raise CuttlefishError("the data is not there")

    assert command(worker=refuse)[:2] == (2, "cuttlefish: the data is not there\n")


def test_a_bug_shows_its_traceback_and_another_code(command):
    code, err, _ = command(worker=lambda config: 1 / 0)
    assert code == 1 and "Traceback" in err and "ZeroDivisionError" in err


def test_an_interrupt_is_130(command):
    def interrupt(config: Config) -> None:
        raise KeyboardInterrupt

    code, _, handed = command("-m", "seed=1,2", worker=interrupt)
    assert code == 130 and len(handed) == 1


def test_a_sweep_goes_on_after_a_failure_and_sums_up(command):
    def odd_fails(config: Config) -> None:
        if config.seed % 2:
            raise CuttlefishError("odd")

    code, err, handed = command("-m", "seed=1,-1,2", worker=odd_fails)
    assert [config.seed for config in handed] == [1, 2]
    assert code == 2
    assert err.splitlines() == [
        "cuttlefish: seed=1: odd",
        "cuttlefish: seed=-1: seed must be in [0, 2**32), not -1",
        "cuttlefish: 3 runs: 1 finished, 2 failed (seed=1, seed=-1)",
    ]


def test_a_sweep_s_values_can_be_hydra_s_own_setting(command):
    code, _, handed = command("-m", "+hydra.sweeper.params.seed='3,4'")
    assert code == 0 and [config.seed for config in handed] == [3, 4]


def test_a_sweeper_is_given_the_accuracy_of_each_run(command, monkeypatch):
    returned = []

    def keep(self, config, job_return):
        returned.append(job_return.return_value)

    monkeypatch.setattr(Notes, "on_job_end", keep)
    command("-m", "seed=3,-1,4")
    assert returned == [3.0, None, 4.0]
    folder = f"runs/resnet18-cifar10-full_rank/{'0' * 12}"
    found = [(one.state, one.score, one.params, one.folder) for one in made]
    failed = ("failed", None, None, "")
    assert found == [("finished", 3.0, 9, folder), failed, ("finished", 4.0, 9, folder)]


def test_optuna_finds_the_best_of_its_trials(command, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="hydra-optuna-sweeper is not installed")
    code, _, handed = command(
        *("-m", "hydra/sweeper=optuna", "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=4"),
        *("hydra.sweeper.n_jobs=1", "hydra/sweeper/sampler=grid", "seed=1,2,5,4"),
    )
    assert code == 0 and len(handed) == 4
    assert "best_value: 5.0" in (tmp_path / "runs/.hydra/optimization_results.yaml").read_text()


def test_help_lists_what_a_config_dir_adds(tmp_path):
    (tmp_path / "debug").mkdir()
    (tmp_path / "debug" / "mine.yaml").write_text("# My own \x1b[31mway.\n")
    done = front_door(tmp_path, f"--config-dir={tmp_path}", "--help")
    assert done.returncode == 0
    assert "debug=mine     My own [31mway." in done.stdout
    assert "debug=smoke" in done.stdout


def test_a_sweep_that_nobody_reads_of_goes_on(command, monkeypatch):
    """Started over a connection that is lost since."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    def both_fail(config: Config) -> None:
        raise CuttlefishError("bad") if config.seed == 1 else RuntimeError("a bug")

    monkeypatch.setattr(sys, "stderr", Gone())
    code, _, handed = command("-m", "seed=1,2", worker=both_fail)
    assert code == 1 and [config.seed for config in handed] == [1, 2]


def test_a_sweep_after_a_failed_one_starts_afresh(command):
    assert command("seed=-1")[0] == 2
    code, err, handed = command("model=vgg19", "-m", "seed=1,2")
    assert (code, err) == (0, "cuttlefish: 2 runs: 2 finished\n")
    assert [config.model.name for config in handed] == ["vgg19", "vgg19"]


PROBE = """
import atexit, runpy, sys
atexit.register(lambda: print("HEAVY", [name for name in ("torch", "wandb", "matplotlib", "timm", "transformers") if name in sys.modules]))
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("arguments", "code", "shown"),
    [
        (["--help"], 0, "model=resnet18"),
        (["model=vgg19", "--cfg", "job"], 0, "name: vgg19"),
        (["recipe.epochs=0"], 2, ""),
        (["data.classes=5"], 2, ""),
    ],
)
def test_nothing_heavy_is_imported_before_the_config_is_sound(tmp_path, arguments, code, shown):
    probe = PROBE.format(argv=[str(ROOT / "run.py"), *arguments])
    command = [sys.executable, "-c", probe]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment())
    assert done.returncode == code and shown in done.stdout
    assert done.stdout.endswith("HEAVY []\n"), done.stdout + done.stderr


def test_a_sweep_tells_finished_skipped_busy_and_failed(command):
    def mixed(config: Config) -> str | None:
        if config.seed == 3:
            raise Busy("taken")
        if config.seed == 4:
            raise CuttlefishError("bad")
        return "skipped" if config.seed == 2 else None

    code, err, _ = command("-m", "seed=1,2,3", worker=mixed)
    assert code == 3
    told = "3 runs: 1 finished, 1 skipped (finished before), 1 being run by another process"
    assert err.splitlines()[-1] == f"cuttlefish: {told}"
    assert command("-m", "seed=3,4", worker=mixed)[0] == 2
    code, err, _ = command("-m", "seed=1,2", worker=mixed)
    assert (code, err) == (0, "cuttlefish: 2 runs: 1 finished, 1 skipped (finished before)\n")


def test_a_saved_interruption_ends_the_sweep_with_its_own_code(command):
    def stopped(config: Config) -> None:
        raise Interrupted("stopped by SIGTERM, state saved")

    code, err, handed = command("-m", "seed=1,2", worker=stopped)
    assert (code, err) == (75, "cuttlefish: stopped by SIGTERM, state saved\n") and len(handed) == 1


def test_an_interrupted_sweep_sums_up_what_it_did(command):
    def second_stops(config: Config) -> None:
        if config.seed == 2:
            raise Interrupted("state saved")

    code, err, handed = command("-m", "seed=1,2,3", worker=second_stops)
    assert code == 75 and len(handed) == 2
    assert err.splitlines() == [
        "cuttlefish: state saved",
        "cuttlefish: 2 runs: 1 finished, 1 interrupted (the same command goes on)",
    ]


@pytest.mark.parametrize("lost", [False, True])
def test_a_stop_that_comes_too_late_for_a_run_ends_its_sweep(lost, command):
    """While its plots are drawn, say, or on the way to another failure; not where the run has been lost and
    nobody asked.
    """

    def late(config: Config) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        if lost:
            raise TakenOver

    code, err, handed = command("-m", "seed=1,2", worker=late)
    assert (code, len(handed)) == ((3, 2) if lost else (75, 1))
    assert err.splitlines()[-1].endswith(
        "2 runs: 2 being run by another process" if lost else "stopped by SIGTERM; the same command goes on"
    )
    assert command("seed=1", worker=late)[0] == (3 if lost else 0), "one that has finished has finished"


def test_a_python_without_hydra_says_which_one_has_it(tmp_path):
    (tmp_path / "hydra.py").write_text("raise ModuleNotFoundError(\"No module named 'hydra'\")")
    done = front_door(tmp_path, "data=synthetic", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "make setup" in done.stderr


@pytest.mark.parametrize("key", ["run_dir", "runs_root", "fork_from"])
def test_a_place_below_a_home_is_not_made_by_that_name(command, tmp_path, key):
    code, err, handed = command("data=synthetic", f"{key}='~/x'")
    assert code == 2 and not handed and f"{key}=~/x begins with ~" in err, err
    assert not list(tmp_path.glob("~*"))


def test_nothing_to_fork_from_is_told_before_the_worker_is(command):
    code, err, handed = command("data=synthetic", "fork_from=nosuch")
    assert code == 2 and not handed and "fork_from=nosuch: there is no checkpoint" in err, err
