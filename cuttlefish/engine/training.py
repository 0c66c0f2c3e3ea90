"""A run in training: its parts, and the state of them that a checkpoint holds."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cuttlefish.config.recipe import OptimizerConfig
from cuttlefish.config.schema import TrainerConfig
from cuttlefish.engine.average import Average
from cuttlefish.engine.batches import Batches
from cuttlefish.engine.evaluate import Scores, evaluate
from cuttlefish.engine.processes.world import World
from cuttlefish.engine.saving.progress import Progress, random_state, restore_random_state
from cuttlefish.engine.step import StepRunner, allow_graphs
from cuttlefish.engine.timer import Timer
from cuttlefish.loggers.base import Loggers
from cuttlefish.methods.base import Context, Method
from cuttlefish.methods.schedule import schedule_from_dict, schedule_to_dict
from cuttlefish.process.signals import StopSignals
from cuttlefish.tasks.base import Batch


@dataclass
class Training:
    """The parts of a run in training.

    Attributes:
        run: Fields that distinguish this run's checkpoints from another run's.
        runner: Takes the steps; made anew for every phase and transition.
        average: The average of the weights, if the recipe asks for one.
    """

    context: Context
    method: Method
    batches: Batches
    config: TrainerConfig
    world: World
    loggers: Loggers
    timer: Timer
    stop: StopSignals
    run: Mapping[str, Any] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    runner: StepRunner | None = None
    average: Average | None = None

    def make_runner(self, optimizer: OptimizerConfig | None, epoch: int) -> None:
        """Make a step runner for the model as it is now, at the learning rate of `epoch`."""
        self.runner = None  # two optimizers must never coexist in memory
        context, recipe = self.context, self.context.recipe
        self.runner = StepRunner(
            context.model, self.batches.task, self.method,
            replace(recipe, optimizer=optimizer or recipe.optimizer), context.schedule.lr(epoch),
            self.config, self.world, context.device, self.batches.seed,
        )  # fmt: skip
        if self.config.compile:
            with self.timer.section("compile"):
                training, evaluation = self.batches.train_shapes(), self.batches.evaluation_shapes()
                allow_graphs(len(training) + len(evaluation))
                self.runner.warm_up(training)
                self.evaluate(lambda split: evaluation)

    def begin_average(self) -> None:
        """Average the weights of a phase from its first step on, if the recipe asks for it."""
        if self.context.recipe.ema is not None:
            self.average = Average(self.context.model, self.context.recipe.ema)

    def evaluate(self, batches: Callable[[str], Iterable[Batch]]) -> Scores:
        """Evaluate the averaged weights where there are any, else the model's (see `evaluate`)."""
        with nullcontext() if self.average is None else self.average.inside(self.context.model):
            return evaluate(self.context, self.method, self.batches.task, batches, self.world)

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs, as tensors and plain containers. A collective call."""
        random, *others = self.world.gather(random_state(self.context.device))
        return {
            "run": dict(self.run),
            "method_name": self.method.name,
            "progress": asdict(self.progress),
            "clock": self.timer.state_dict(),
            "schedule": schedule_to_dict(self.context.schedule),
            "method": self.method.state_dict(),
            "model": self.context.model.state_dict(),
            "optimizer": self.runner.optimizer.state_dict(),
            **({} if self.average is None else {"average": self.average.state_dict()}),
            "random": random,
            "random_others": others,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the architecture, then the weights; `load_phase_state` follows when the phase goes on."""
        self.progress = Progress(**state["progress"])
        self.context.schedule = schedule_from_dict(state["schedule"])
        self.method.load_state_dict(self.context, state["method"])
        self.context.model.load_state_dict(state["model"])
        others = state.get("random_others", [])
        restore_random_state(state["random"], others, self.world, self.context.device)

    def load_phase_state(self, state: Mapping[str, Any]) -> None:
        """Restore the optimizer and the average of the phase that the state lies in."""
        self.runner.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None and "average" in state:
            self.average.load_state_dict(state["average"])
