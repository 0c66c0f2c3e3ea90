"""LC compression with learned ranks (Idelbayev and Carreira-Perpiñán, CVPR 2020).

A reference network is trained; then L steps (SGD with a quadratic penalty towards a low-rank Δ) alternate
with C steps (Δ and its rank in closed form) under a growing μ; finally the layers become factors of the
learned ranks and are fine-tuned.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from baselines.lc import c_step
from baselines.lc.c_step import Layer, Spectrum
from baselines.lc.penalty import Penalty
from baselines.lc.plan import make_plan
from baselines.lc.settings import Settings
from cuttlefish.config.recipe import RecipeConfig
from cuttlefish.lowrank.count import count_parameters
from cuttlefish.lowrank.decay import FrobeniusDecay
from cuttlefish.lowrank.matrix import fold, matrix_shape, unroll
from cuttlefish.lowrank.path import candidates, main_path
from cuttlefish.lowrank.profiling.timing import positions
from cuttlefish.lowrank.surgery import factorize, find_layers, low_rank_layers
from cuttlefish.lowrank.trace import NORMS
from cuttlefish.methods.base import Context, Phase
from cuttlefish.methods.sized import SizedMethod
from cuttlefish.record.folder import RANK_COLUMNS


class LC(SizedMethod):
    """Stateful across phases: C steps done, the penalty's Δ and λ, the ranks of every C step."""

    name = "lc"
    no_fork = ""
    Settings = Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.done = 0
        self.alpha: float | None = None
        self.penalty = Penalty()
        self.path: dict[str, list[int]] = {}
        self.factorized: dict[str, int] = {}

    @classmethod
    def planned_epochs(cls, settings: Settings, recipe: RecipeConfig) -> int:
        return make_plan(settings, recipe).epochs

    def prepare(self, context: Context) -> None:
        super().prepare(context)
        self.plan = make_plan(self.settings, context.recipe)
        self.dense = count_parameters(context.model).total
        self._find_layers(context.model, context.example_batch().inputs)
        smallest = c_step.compressed(self.dense, self.layers, dict.fromkeys(self.layers, 0))
        self.check_reachable(smallest, self.dense)

    def _find_layers(self, model: nn.Module, images: Tensor) -> None:
        """Choose the layers to compress, and compute what a rank of each costs."""
        chosen = self.settings
        executed = main_path(model, images, shortcuts=chosen.include_shortcuts)
        possible = find_layers(model).layers
        ends = [executed[0].name] * chosen.include_first + [executed[-1].name] * chosen.include_last
        wanted = {*candidates(model, executed), *(name for name in ends if name in possible)}
        layers = [layer for layer in executed if layer.name in wanted]
        per = {layer.name: positions(layer) if chosen.criterion == "flops" else 1 for layer in layers}
        self.layers = {
            layer.name: Layer(*matrix_shape(layer.module.weight.shape, chosen.scheme), per[layer.name])
            for layer in layers
        }
        self.k = [layer.name for layer in executed].index(layers[0].name)

    # Phases

    def phases(self, context: Context) -> Iterator[Phase]:
        plan, recipe, sgd = self.plan, self.plan.recipe, self.plan.sgd
        schedule = plan.reference_schedule()
        yield Phase("reference", range(recipe.epochs), optimizer=recipe.optimizer, schedule=schedule)
        for step, (epochs, schedule) in enumerate(zip(plan.l_steps, plan.l_schedules(), strict=True), 1):
            yield Phase(f"L{step}", range(epochs), optimizer=sgd, schedule=schedule, enter=self.compress)
        epochs, schedule = range(plan.finetune), plan.ft_schedule()
        yield Phase("finetune", epochs, optimizer=sgd, schedule=schedule, enter=self.reparametrise)

    # C steps

    @torch.no_grad()
    def compress(self, context: Context) -> None:
        """Run the next C step and, at the last repeat of its μ, the multiplier step; then set the penalty."""
        mu, weights = self.plan.mus[self.done], self._weights(context.model)
        with context.section("ranks"):
            shifted = self.penalty.shifted(weights, mu)
            matrices = {name: unroll(weight, self.settings.scheme) for name, weight in shifted.items()}
            spectra = {name: c_step.spectrum(matrix) for name, matrix in matrices.items()}
            self._choose_alpha(context, spectra)
            ranks = context.broadcast(self._ranks(spectra, mu))
            found = {name: c_step.truncate(matrices[name], spectra[name], ranks[name]) for name in matrices}
            self._take_up(context, ranks, found)
            if (self.done + 1) % self.settings.mu_rep == 0:
                self.penalty.update_multipliers(weights, mu)
            self.done += 1
            self._pull(context.model)
        self._report(context, mu, spectra)

    def _choose_alpha(self, context: Context, spectra: dict[str, Spectrum]) -> None:
        """Choose α from the reference's spectra and the final μ; with `retarget` at every C step."""
        chosen = self.settings
        if self.target is None:
            self.alpha = chosen.alpha
        elif self.alpha is None or chosen.retarget:
            final = {"mu": self.plan.mus[-1], "normalize": chosen.normalize}
            found = c_step.alpha_for(self.target.params, self.dense, self.layers, spectra, **final)
            self.alpha = context.broadcast(chosen.alpha_factor * found)

    def _ranks(self, spectra: dict[str, Spectrum], mu: float) -> dict[str, int]:
        learned = partial(c_step.learned_rank, mu=mu, normalize=self.settings.normalize)
        return {
            name: learned(found, price=self.alpha * self.layers[name].unit) for name, found in spectra.items()
        }

    def _take_up(self, context: Context, ranks: dict[str, int], found: dict[str, Tensor]) -> None:
        """Take Δ from the first process."""
        agreed = context.broadcast({name: matrix.cpu() for name, matrix in found.items()})
        weights, scheme = self._weights(context.model), self.settings.scheme
        deltas = {name: fold(agreed[name], weight.shape, scheme) for name, weight in weights.items()}
        self.penalty.set_deltas(weights, deltas)
        for name in weights:
            self.path.setdefault(name, []).append(ranks[name])

    def _pull(self, model: nn.Module) -> None:
        """Set the penalty of the next L step, if there is one."""
        self.penalty.end()
        if 0 < self.done < len(self.plan.mus):
            self.penalty.begin(self._weights(model), self.plan.mus[self.done])

    def _report(self, context: Context, mu: float, spectra: dict[str, Spectrum]) -> None:
        """Record the learned ranks in the column scaled_rank, at the plan's epoch."""
        ranks, weights = {name: path[-1] for name, path in self.path.items()}, self._weights(context.model)
        gaps = c_step.relative_errors([*weights.values()], [self.penalty.deltas[name] for name in weights])
        size = c_step.compressed(self.dense, self.layers, ranks)
        context.log(
            f"C step {self.done} of {len(self.plan.mus)}: μ = {mu:.3g}, {size:,} parameters, "
            f"‖w - Δ‖ / ‖w‖ at most {max(gaps):.2g}"
        )
        epoch = self.plan.recipe.epochs + sum(self.plan.l_steps[: self.done - 1])
        rows = [
            (epoch, name, spectra[name].stable_rank, ranks[name], layer.full_rank)
            for name, layer in self.layers.items()
        ]
        context.log_ranks([dict(zip(RANK_COLUMNS, row, strict=False)) for row in rows])  # the step is added

    # L steps

    def on_gradients(self, model: nn.Module) -> None:
        """Make gradients ∇L + μ(w - Δ) - λ in L steps; add Frobenius decay of factors in fine-tuning."""
        self.penalty.add_gradients()
        super().on_gradients(model)

    def evaluating(self, model: nn.Module) -> AbstractContextManager:
        """Evaluate at w := Δ (from before this L step) but with w's norm statistics; restore w bit by bit."""
        # The older Δ does not affect the record's final and best accuracies, which come from the factors.
        return self.penalty.at_deltas(self._weights(model)) if self.penalty.pulls else nullcontext()

    # Fine-tuning

    def reparametrise(self, context: Context) -> None:
        """Run the last C step, then factorize at the learned ranks where that stores fewer numbers."""
        self.compress(context)
        ranks = {name: max(path[-1], 1) for name, path in self.path.items()}
        with context.section("switch"):
            if self.settings.ft_from == "delta":
                self._settle(context.model)
            factorize(context.model, ranks, scheme=self.settings.scheme)
        self.factorized = {name: ranks[name] for name in low_rank_layers(context.model) if name in ranks}
        self._decay_products(context.model)
        self.penalty = Penalty()
        empty = [name for name, path in self.path.items() if path[-1] == 0]
        if empty:
            which = ", ".join(empty)
            context.log(f"rank 0 was learned for {which}: rank 1 is kept, because the network needs a signal")

    @torch.no_grad()
    def _settle(self, model: nn.Module) -> None:
        """Set w := Δ except for layers of rank 0: factors of a zero matrix would never get a gradient."""
        for name, weight in self._weights(model).items():
            if self.path[name][-1] > 0:
                weight.copy_(self.penalty.deltas[name])

    def _decay_products(self, model: nn.Module) -> None:
        self.decay = FrobeniusDecay(model, self.plan.sgd.weight_decay, layers=self.factorized)

    def param_groups(self, model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        groups = super().param_groups(model, weight_decay)
        if not self.settings.decay_norms:
            return groups
        norms = [module for module in model.modules() if isinstance(module, NORMS)]
        scales = dict.fromkeys(norm.weight for norm in norms if norm.weight is not None)
        for group in groups:
            group["params"] = [parameter for parameter in group["params"] if parameter not in scales]
        groups.append({"params": list(scales), "weight_decay": weight_decay})
        return [group for group in groups if group["params"]]

    # The record and the checkpoint

    def on_fit_end(self, context: Context) -> dict[str, Any]:
        found = {
            "ranks": self.factorized,
            "k": self.k,
            "alpha": self.alpha,
            "mu": self.plan.mus,
            "rank_path": self.path,
            "rank_zero": [name for name, path in self.path.items() if path[-1] == 0],
        }
        return self.with_target(found, count_parameters(context.model).total)

    def state_dict(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in ("done", "alpha", "path", "factorized")}
        return state | self.penalty.state_dict() | super().state_dict()

    def load_state_dict(self, context: Context, state: dict[str, Any]) -> None:
        """Load the state; one without these keys is another run's dense training, used as the reference."""
        super().load_state_dict(context, state)
        self.done, self.alpha = state.get("done", 0), state.get("alpha")
        self.path, self.factorized = state.get("path", {}), state.get("factorized", {})
        model, scheme = context.model, self.settings.scheme
        if self.factorized or self.done == len(self.plan.mus):
            factorize(model, self.factorized, scheme=scheme, keep_dense=False, initialise=False)
            self._decay_products(model)
            return
        self.penalty.load_state_dict(self._weights(model), state)
        self._pull(model)

    def _weights(self, model: nn.Module) -> dict[str, nn.Parameter]:
        return {name: model.get_submodule(name).weight for name in self.layers}
