"""Where a run's progress goes."""

from __future__ import annotations

from cuttlefish.config import Config
from cuttlefish.sinks.base import Sink


def build_sinks(config: Config) -> list[Sink]:
    """JSON lines always (they are the truth), the others as `sink` says."""
    from cuttlefish.sinks.console import console_sink
    from cuttlefish.sinks.jsonl import JsonLines
    from cuttlefish.sinks.plots import Plots

    sinks: list[Sink] = [JsonLines()]
    if config.sink.plots:
        sinks.append(Plots())
    if config.sink.wandb.mode != "disabled":
        from cuttlefish.sinks.wandb import WandbSink

        sinks.append(WandbSink(config.sink.wandb))
    if config.sink.console:
        sinks.append(console_sink())  # last, so that its closing screen can name the plots
    return sinks
