"""Where a run's progress goes."""

import logging

from cuttlefish.config.schema import Config
from cuttlefish.loggers.base import Sink

log = logging.getLogger("cuttlefish.loggers")


def build_sinks(config: Config) -> list[Sink]:
    """JSON lines always (they are the truth), the others as `sink` says."""
    from cuttlefish.loggers.jsonl import JsonLines
    from cuttlefish.loggers.plots import Plots

    sinks: list[Sink] = [JsonLines()]
    if config.sink.plots:
        sinks.append(Plots())
    if config.sink.wandb.mode != "disabled":
        from cuttlefish.loggers.wandb import WandbSink

        sinks.append(WandbSink(config.sink.wandb))
    if config.sink.console:
        sinks += _console()  # last, so that its closing screen can name the plots
    return sinks


def _console() -> list[Sink]:
    try:
        from cuttlefish.loggers.console import console_sink
    except ImportError:  # a machine with torch only
        log.warning("rich is not installed: no progress is shown, see epochs.jsonl in the run folder")
        return []
    return [console_sink()]
