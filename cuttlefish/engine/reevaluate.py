"""Evaluate the weights that a finished run has kept."""

from dataclasses import replace
from pathlib import Path

from cuttlefish.config.schema import Config
from cuttlefish.engine.evaluate import Scores, evaluate
from cuttlefish.engine.run import resolve_run
from cuttlefish.engine.saving.weights import load_weights
from cuttlefish.engine.session import Session
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.layout import to_channels_last


def reevaluate(config: Config, key: str, folder: Path) -> Scores:
    """Evaluate the final weights in a finished run's folder as the run did. Writes nothing.

    Raises:
        CuttlefishError: The weights are missing, damaged, from another run, or do not fit the network.
    """
    weights = load_weights(folder)
    if weights.run_key != key:
        raise CuttlefishError(f"the weights in {folder} are those of run {weights.run_key}, not of {key}")
    session = Session(replace(resolve_run(config), key=key, folder=folder), state=weights.method)
    session.method.load_state_dict(session.context, weights.method)
    try:
        session.context.model.load_state_dict(weights.model)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CuttlefishError(
            f"the weights in {folder} do not fit the network of their config: {reason}"
        ) from error
    if config.trainer.channels_last:  # as in the run: another layout changes the last bits
        to_channels_last(session.context.model)
    return evaluate(session.context, session.method, session.task, session.batches.evaluate, session.world)
