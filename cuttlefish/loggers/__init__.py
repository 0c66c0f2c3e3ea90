"""Loggers of a run's progress."""

import logging

from cuttlefish.config.schema import LoggerConfig
from cuttlefish.loggers.base import Logger

log = logging.getLogger("cuttlefish.loggers")


def build_loggers(config: LoggerConfig) -> list[Logger]:
    """Return the JSON-lines logger, which every run has, and those that the config enables."""
    from cuttlefish.loggers.jsonl import JsonLines

    loggers: list[Logger] = [JsonLines()]
    if config.plots:
        from cuttlefish.loggers.plots import Plots

        loggers.append(Plots())
    if config.csv:
        from cuttlefish.loggers.csv import CsvLogger

        loggers.append(CsvLogger())
    if config.tensorboard:
        from cuttlefish.loggers.tensorboard import TensorBoardLogger

        loggers.append(TensorBoardLogger())
    if config.wandb.mode != "disabled":
        from cuttlefish.loggers.wandb import WandbLogger

        loggers.append(WandbLogger(config.wandb))
    if config.console:
        loggers += _console()  # last, so that its final screen can list the plots
    return loggers


def _console() -> list[Logger]:
    try:
        from cuttlefish.loggers.console import console_logger
    except ImportError:  # rich is not installed
        log.warning("rich is not installed: no progress is shown, see epochs.jsonl in the run folder")
        return []
    return [console_logger()]
