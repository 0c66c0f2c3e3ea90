"""Run one job of the command line or of a sweep; one that fails does not stop the others."""

import os
from collections.abc import Callable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cuttlefish.config.compose import checked_config
from cuttlefish.config.schema import Config
from cuttlefish.errors import CuttlefishError, Interrupted
from cuttlefish.process.claim_gpus import SHARING, take_devices
from cuttlefish.process.outcomes import NOTE, Ending, failure, in_front, keep, say, show_traceback, success
from cuttlefish.process.requeue import requeue
from cuttlefish.process.signals import StopSignals, end_with_parent


def run_one(composed: DictConfig, train: Callable[[Config, StopSignals], Ending]) -> float | None:
    """Check the config of one Hydra job, train it and keep its outcome.

    Returns:
        The headline metric, for a sweeper to optimize; None if there is none.
    """
    hydra, stop = HydraConfig.get(), StopSignals()
    in_sweep = hydra.mode == RunMode.MULTIRUN
    asked = " ".join(OmegaConf.to_container(hydra.overrides.task, resolve=False))
    if _shares_machine(hydra):
        end_with_parent()  # joblib does not forward signals
    try:
        config = checked_config(composed, hydra)
        if _shares_machine(hydra) and config.trainer.device != "cpu":
            take_devices(config.trainer.devices, _sweep_folder(hydra) / "devices")
        outcome = success(asked, config, *train(config, stop))
    except Interrupted as error:
        outcome = failure(asked, error)
        if in_front():
            keep(outcome)
            raise  # stop the whole sweep
        requeue(error)
    except Exception as error:
        outcome = failure(asked, error)
        if not isinstance(error, CuttlefishError):
            show_traceback(error)
        if in_front() and NOTE not in os.environ:
            say(f"{asked}: {outcome.said}" if in_sweep else outcome.said)
    keep(outcome)
    if stop.requested and outcome.state != "busy" and in_sweep and in_front():
        # The request came too late for this run, so do not begin the next. ("busy": the lock, not a user,
        # stopped a run that another process took over.)
        raise Interrupted(f"stopped by {stop.requested}; the same command goes on", stop.requested)
    return outcome.score


def _shares_machine(hydra: DictConfig) -> bool:
    """Return whether this is one of several jobs on this machine without devices from the launcher."""
    shared = hydra.mode == RunMode.MULTIRUN and hydra.launcher._target_.endswith(SHARING)
    return NOTE in os.environ or (shared and not in_front())


def _sweep_folder(hydra: DictConfig) -> Path:
    return Path(os.environ[NOTE]).parents[2] if NOTE in os.environ else Path(hydra.sweep.dir)
