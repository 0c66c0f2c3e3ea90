"""The front door: python run.py model=... data=... method=... (--help lists the choices, -m sweeps).

Composes and checks the config before torch is imported, then hands it to the worker. In a sweep a failed run stops
nothing; how many finished, had been finished before, are done by another process or failed is summed up at the end.
Exit codes: 0 fine, 1 a bug or a crash, 2 bad input, 3 another process is at it, 75 stopped with its state saved (the same
command goes on), 130 stopped at once.
"""

import os
import sys
import traceback
import warnings
from contextlib import suppress
from pathlib import Path

try:
    import hydra
except ModuleNotFoundError:
    sys.stderr.write(
        "cuttlefish: this Python lacks Hydra; `make setup` makes one that has everything, .venv/bin/python\n"
    )
    sys.exit(2)
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cuttlefish.config.choice_checks import refuse_old_words
from cuttlefish.config.choices import help_text
from cuttlefish.config.compose import checked_config
from cuttlefish.config.hydra_errors import sentence
from cuttlefish.config.schema import Config
from cuttlefish.data.registry import data_set
from cuttlefish.errors import (
    EXIT_AT_ONCE,
    EXIT_BAD_INPUT,
    EXIT_CRASH,
    CuttlefishError,
    Interrupted,
    exit_code,
)
from cuttlefish.process.claim_gpus import SHARING, take_devices
from cuttlefish.process.outcomes import LOST, NOTE, Notes, Outcome, failure, note, noted, summary, worst_code
from cuttlefish.process.requeue import requeue
from cuttlefish.process.signals import StopSignals, end_with_parent

ROOT = Path(__file__).resolve().parent
CONF = ROOT / "conf"
sys.path.append(
    str(ROOT / "cuttlefish" / "process" / "launchers")
)  # Hydra looks for launchers wherever a path has `hydra_plugins`
outcomes: list[Outcome] = []
"""Of each run that was asked for."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def run(composed: DictConfig) -> Outcome:
    job = HydraConfig.get()
    asked = " ".join(OmegaConf.to_container(job.overrides.task, resolve=False))
    stop = StopSignals()
    if _shares_machine(job):
        end_with_parent()  # joblib hands no signal on
    try:
        config = checked_config(composed, job)
        data_set(config.data)  # refuses what no data set takes
        if LOST in os.environ:
            return _lost(asked, config)
        if _shares_machine(job) and config.trainer.device != "cpu":
            sweep = Path(os.environ[NOTE]).parents[2] if NOTE in os.environ else Path(job.sweep.dir)
            take_devices(config.trainer.devices, sweep / "devices")
        from cuttlefish.worker import run_or_skip  # imports torch

        outcome = Outcome(asked, run_or_skip(config, stop)[0])
    except Interrupted as error:
        outcome = failure(asked, error)
        if _in_this_process(job):
            _keep(outcome)
            raise  # the whole sweep is to stop
        requeue(error)
    except Exception as error:
        outcome = failure(asked, error)
        if not isinstance(error, CuttlefishError):
            _show(error)
        if _in_this_process(job) and NOTE not in os.environ:
            _say(_told(outcome, job.mode == RunMode.MULTIRUN))
    _keep(outcome)
    if stop.requested and outcome.state != "busy" and job.mode == RunMode.MULTIRUN and _in_this_process(job):
        # It came when this run was as good as over; the next one is not begun. (Who loses a run to another process was not asked by anyone.)
        raise Interrupted(f"stopped by {stop.requested}; the same command goes on", stop.requested)
    return outcome


def main() -> int:
    outcomes.clear()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors, for us to tell in one sentence
    # Our launcher files bear the names that users know, which are also those of the plugins' schemas: Hydra matches them, as meant.
    warnings.filterwarnings(
        "ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema"
    )
    os.environ.setdefault(
        "PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.process"
    )  # the same, said in joblib's processes
    if {"--help", "-h"} & set(sys.argv):
        print(help_text([CONF]))
        return 0
    try:
        refuse_old_words(sys.argv[1:])
    except CuttlefishError as error:
        _say(str(error))
        return EXIT_BAD_INPUT
    if any(word.startswith("replay=") for word in sys.argv[1:]):
        from cuttlefish.replay import main as replay

        return replay(sys.argv[1:])
    sys.argv[1:] = sorted(
        sys.argv[1:], key=lambda word: word not in ("-m", "--multirun")
    )  # Hydra stumbles over them amid overrides
    try:
        run()
    except Interrupted as error:
        if NOTE not in os.environ:
            _say(str(error))
        _sum_up()
        return exit_code(error)
    except KeyboardInterrupt:
        _sum_up()
        return EXIT_AT_ONCE
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        _say(sentence(error, [CONF]))
        return EXIT_BAD_INPUT
    except ValueError as error:
        if "Config group override" not in str(error):
            raise
        _say(sentence(error))
        return EXIT_BAD_INPUT
    except Exception as error:
        return _launcher_gave_up(error)
    return _sum_up()


def _sum_up() -> int:
    """Say how the runs of a sweep went; the exit code of the worst."""
    elsewhere = noted()
    for outcome in elsewhere:
        if outcome.said:
            _say(_told(outcome, True))
    outcomes.extend(elsewhere)
    if len(outcomes) > 1:
        _say(summary(outcomes))
    return worst_code(outcomes)


def _launcher_gave_up(error: Exception) -> int:
    """A launcher that is missing, or that lost a job's process without a word of it."""
    if "Unknown plugin class" in str(error):
        _say(
            "this hydra/launcher is not installed: pip install -e '.[suite,launchers]' brings joblib and submitit, '.[suite,ray]' Ray"
        )
        return EXIT_BAD_INPUT
    if Notes.folder is None:
        raise error
    _show(error)
    _sum_up()
    _say(
        f"the launcher lost a job ({type(error).__name__}); runs that were not told of may be unfinished, and the same command goes on with them"
    )
    return EXIT_CRASH


def _lost(asked: str, config: Config) -> Outcome:
    from cuttlefish.engine.run import record_failure, resolve_run  # imports torch

    error = CuttlefishError(os.environ[LOST])
    record_failure(resolve_run(config), error, config.trainer.devices)
    return failure(asked, error)


def _keep(outcome: Outcome) -> None:
    outcomes.append(outcome)
    if NOTE in os.environ:
        note(Path(os.environ[NOTE]), outcome)


def _shares_machine(job: DictConfig) -> bool:
    """Whether this is one of several jobs on this machine, to none of which the launcher has given devices."""
    return NOTE in os.environ or (job.mode == RunMode.MULTIRUN and job.launcher._target_.endswith(SHARING))


def _in_this_process(job: DictConfig) -> bool:
    return job.mode != RunMode.MULTIRUN or job.launcher._target_.endswith("BasicLauncher")


def _told(outcome: Outcome, one_of_many: bool) -> str:
    return f"{outcome.asked}: {outcome.said}" if one_of_many else outcome.said


def _say(text: str) -> None:
    with suppress(
        OSError
    ):  # who read it may be gone (`| tee`, a lost connection), which is no reason for a sweep to end
        print(f"cuttlefish: {text}", file=sys.stderr, flush=True)


def _show(error: Exception) -> None:
    with suppress(OSError):
        traceback.print_exception(error)


if __name__ == "__main__":
    sys.exit(main())
