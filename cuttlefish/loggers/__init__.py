"""Where a run's progress goes."""

import logging

from cuttlefish.config.schema import LoggerConfig
from cuttlefish.loggers.base import Logger

log = logging.getLogger("cuttlefish.loggers")


def build_loggers(config: LoggerConfig) -> list[Logger]:
    """JSON lines always (they are the truth), the others as `logger` says."""
    from cuttlefish.loggers.jsonl import JsonLines
    from cuttlefish.loggers.plots import Plots

    loggers: list[Logger] = [JsonLines()]
    if config.plots:
        loggers.append(Plots())
    if config.wandb.mode != "disabled":
        from cuttlefish.loggers.wandb import WandbLogger

        loggers.append(WandbLogger(config.wandb))
    if config.console:
        loggers += _console()  # last, so that its closing screen can name the plots
    return loggers


def _console() -> list[Logger]:
    try:
        from cuttlefish.loggers.console import console_logger
    except ImportError:  # a machine with torch only
        log.warning("rich is not installed: no progress is shown, see epochs.jsonl in the run folder")
        return []
    return [console_logger()]
