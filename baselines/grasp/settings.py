"""The knobs of GraSP."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from cuttlefish.limits import Checked, Within
from cuttlefish.methods.own_recipe import OwnRecipe
from cuttlefish.methods.target import Match, TargetSize, one_size

Number = Annotated[int | None, Within(1, 10**6)]


@dataclass(frozen=True)
class Settings(Checked):
    """The knobs of GraSP.

    Attributes:
        ratio: Fraction of the conv and linear weights to remove; 0.9 if no size is given either.
        samples_per_class: Samples per class for each of num_iters terms.
        images_per_iter: Samples of any class for each term instead (the original's method on ImageNet).
        chunk_size: Size of the parts of a draw, each with its own mean loss; None: two halves.
        shuffle_halves: Mix the classes over the parts; the original has the first classes in one and the
            last in the other.
        reinit_classifier: Score fresh weights of the last or of all linear layers, as the original does.
        mode: exact_k removes exactly round(ratio·N) weights; original, as its code, truncates and keeps
            one more.
        recipe: Replacements for the run's epochs, optimizer and schedule.
        decay_all: Weight decay on biases and norms too.
    """

    ratio: Annotated[float | None, Within(0, 1, "[)")] = None
    target_params: TargetSize = None
    match: Match = None
    samples_per_class: Annotated[int, Within(1, 10**6)] = 10
    images_per_iter: Number = None
    num_iters: Annotated[int, Within(1, 1000)] = 1
    temperature: Annotated[float, Within(0, 10**6, "(]")] = 200.0
    chunk_size: Number = None
    shuffle_halves: bool = True
    reinit_classifier: Literal["none", "last", "all"] = "none"
    mode: Literal["exact_k", "original"] = "exact_k"
    recipe: OwnRecipe = field(default_factory=dict)
    decay_all: bool = False

    def contradictions(self) -> Iterator[str]:
        yield from one_size(self, "ratio")
