"""A finished run's accuracy once more, from its final weights alone."""

from pathlib import Path

from cuttlefish.config.schema import Config
from cuttlefish.engine.evaluate import Scores, evaluate
from cuttlefish.engine.feed import Feed
from cuttlefish.engine.session import Session
from cuttlefish.engine.weights import load_weights
from cuttlefish.errors import CuttlefishError


def reevaluate(config: Config, key: str, folder: Path) -> Scores:
    """Build the run's network from `folder`'s weights and evaluate it as the run did; nothing is written.

    Raises CuttlefishError where the weights are missing, damaged or another run's, or do not fit the network.
    """
    weights = load_weights(folder)
    if weights.run_key != key:
        raise CuttlefishError(f"the weights in {folder} are those of run {weights.run_key}, not of {key}")
    session = Session(config, key, folder, state=weights.method)
    context = session.context
    session.method.load_state_dict(context, weights.method)
    try:
        context.model.load_state_dict(weights.model)
    except RuntimeError as error:
        raise CuttlefishError(
            f"the weights in {folder} do not fit the network of their config: {' '.join(str(error).split())[:200]}"
        ) from error
    with session.method.evaluating(context.model):
        batches = Feed(config, session.task, session.world).evaluate()
        return evaluate(
            context.model, batches, autocast=context.autocast, reduce=session.world.sum, device=session.device
        )
