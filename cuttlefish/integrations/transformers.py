"""Cuttlefish under transformers' Trainer, and low-rank models through save_pretrained.

trainer = Trainer(model, args, train_dataset=…, callbacks=[CuttlefishCallback(interval=100)])
trainer.train()
trainer.save_model("small")
model = from_pretrained(AutoModelForSequenceClassification, "small")
"""

import json
import os
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from cuttlefish.auto import Cuttlefish, EpochReport
from cuttlefish.compression.plan import apply, plan
from cuttlefish.errors import CuttlefishError
from cuttlefish.record.atomic import read_regular

STATE = "cuttlefish.json"
"""File in a checkpoint's folder: the state of `Cuttlefish`."""
IN_CONFIG = "cuttlefish_plan"
"""Attribute of a model's config, and key of its config.json: the plan."""


class CuttlefishCallback(TrainerCallback):
    """Makes the Trainer's model low-rank while it trains, on one process.

    Each checkpoint holds the state; give its folder as `resume` to go on from it, beside the Trainer's own
    `resume_from_checkpoint`, and call `prepare(model)` before the Trainer is made.

    Args:
        batch: One batch of inputs by name; by default the first of the Trainer's own.
        interval: Optimizer steps in place of an epoch, as fine-tuning needs, which has few epochs.
        resume: Folder of a checkpoint.
        **options: Arguments of `Cuttlefish`.

    Attributes:
        core: The `Cuttlefish` object, from the beginning of training on.
    """

    def __init__(
        self,
        batch: Mapping[str, Tensor] | None = None,
        *,
        interval: int | None = None,
        resume: str | os.PathLike[str] | None = None,
        **options: Any,
    ):
        self.batch, self.interval, self.options = batch, interval, options
        self.state = None if resume is None else _read(Path(resume) / STATE)
        self.core: Cuttlefish | None = None

    def prepare(self, model: nn.Module) -> nn.Module:
        """Give a full-rank model the architecture of the checkpoint to resume from, and return it."""
        if self.state is not None and self.core is None:
            self.core = Cuttlefish(model, state=self.state, **self.options)
        return model

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model, optimizer = kwargs["model"], kwargs.get("optimizer")
        if args.world_size > 1:
            raise CuttlefishError(
                f"CuttlefishCallback was given {args.world_size} processes, whose DDP would go on with the "
                "old weights after the switch: train on one, or write the loop with Cuttlefish itself"
            )
        if self.core is None:
            if self.state is not None:
                raise CuttlefishError("resume= was given: call prepare(model) before the Trainer is made.")
            batch = self.batch or next(iter(kwargs["train_dataloader"]))
            batch = {key: value.to(args.device) for key, value in batch.items() if isinstance(value, Tensor)}
            epochs = ceil(state.max_steps / self.interval) if self.interval else ceil(state.num_train_epochs)
            self.core = Cuttlefish(model, batch, epochs=epochs, interval=self.interval, **self.options)
        if self.core.switched:
            _write_plan(model)
        elif optimizer is not None:
            self.core.optimizer(optimizer)

    def on_pre_optimizer_step(self, *_: Any, **kwargs: Any) -> None:
        self._running().before_step()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.interval is not None:
            self._told(self._running().step_end(), state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.interval is None:
            self._told(self._running().epoch_end(), state)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        folder = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
        if folder.is_dir():
            (folder / STATE).write_text(json.dumps(self._running().state_dict()))

    def _running(self) -> Cuttlefish:
        if self.core is None:
            raise CuttlefishError("CuttlefishCallback was called in a training that it did not see begin.")
        return self.core

    def _told(self, report: EpochReport, state: TrainerState) -> None:
        if report:
            _write_plan(self._running().model)
            # The best model at the end must be a low-rank one, for no other could be loaded.
            state.best_metric = state.best_model_checkpoint = None


def from_pretrained(model_class: Any, path: str | os.PathLike[str], **options: Any) -> nn.Module:
    """Return the low-rank model of a folder that save_pretrained has written, in eval mode.

    Args:
        model_class: A model class of transformers, or one of its Auto classes.
        path: The folder.
        **options: Changes to the config.

    Raises:
        CuttlefishError: The folder holds no low-rank model, or other weights than its plan says.
    """
    config = AutoConfig.from_pretrained(path, **options)
    found = getattr(config, IN_CONFIG, None)
    if found is None:
        raise CuttlefishError(f"the config in {os.fspath(path)!r} has no plan: use transformers' own loading")
    build = getattr(model_class, "from_config", None) or getattr(model_class, "_from_config", model_class)
    model = apply(build(config), found, initialise=False)
    missing, unknown = model.load_state_dict(_weights(Path(path)), strict=False)
    tied: Any = {}
    if isinstance(model, PreTrainedModel):
        model.tie_weights()
        tied = model.all_tied_weights_keys
    missing = [name for name in missing if name not in tied]
    if missing or unknown:
        raise CuttlefishError(
            f"the weights in {os.fspath(path)!r} do not fit its plan: {(missing or unknown)[0]!r} is "
            f"{'missing' if missing else 'not in the model'}"
        )
    _write_plan(model)
    return model.eval()


def _read(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file. Raises CuttlefishError if it is missing or damaged."""
    try:
        found = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError) as error:
        raise CuttlefishError(f"{os.fspath(path)!r} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise CuttlefishError(f"{os.fspath(path)!r} holds a {type(found).__name__}, not a mapping")
    return found


def _write_plan(model: Any) -> None:
    """Put the plan into the config, and have weights saved under the model's own names, as they are loaded.

    transformers would save those of some models (ViT, mixtures of experts) as earlier versions had them.
    """
    model.config.update({IN_CONFIG: plan(model)})
    model._weight_conversions = []


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    index = folder / "model.safetensors.index.json"
    names = {"model.safetensors"}
    if index.is_file():
        names = set(_read(index).get("weight_map", {}).values())
    weights: dict[str, torch.Tensor] = {}
    for name in names:
        if not (folder / name).is_file():
            raise CuttlefishError(f"there is no {name} in {os.fspath(folder)!r}")
        try:
            weights |= load_file(folder / name)
        except SafetensorError as error:
            raise CuttlefishError(f"{os.fspath(folder / name)!r} is no safetensors file: {error}") from error
    return weights
