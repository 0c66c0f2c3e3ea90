"""One arm of `make bench glue` in its own process: answers each input line with seconds a token of a round.

Ours and transformers' Trainer have the same model, data, batch size, optimizer and number of steps, on MRPC.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from itertools import count, islice
from time import perf_counter
from typing import Any

import torch

from cuttlefish.config.recipe import OptimizerConfig, RecipeConfig
from cuttlefish.config.schema import Config, DataConfig, ModelConfig, TrainerConfig
from cuttlefish.config.validate import convert, load_config
from cuttlefish.engine.device import set_up
from cuttlefish.engine.processes.world import World
from cuttlefish.engine.step import StepRunner
from cuttlefish.methods import build_method
from cuttlefish.models import build_model
from cuttlefish.models.text import TextTokenizer, tokenizer_for
from cuttlefish.tasks.registry import data_set
from scripts.benches.turns import finish, model_choice

VOCABULARY = 30_522
"""Of MiniLM's tokenizer, whose tokens BERT-base gets too: its weights are random, and steps take as long."""
BATCH, LENGTH, RATE = 32, 128, 2e-5


def model_config(name: str) -> dict[str, Any]:
    """Return a model's config; BERT-base with random weights, which need no network."""
    config = model_choice(name)
    if name == "minilm":
        return config
    return config | {"pretrained": False, "arguments": {**config["arguments"], "vocab_size": VOCABULARY}}


def tokenizer_of_minilm() -> TextTokenizer:
    return tokenizer_for(convert(model_config("minilm"), ModelConfig, "model"))


def ours(arm: dict[str, Any]) -> tuple[Callable[[], tuple[float, int]], dict[str, Any]]:
    """Return a round of our steps, and facts."""
    device, trainer = torch.device(arm["device"]), TrainerConfig(device=arm["device"])
    set_up(trainer, device, 0)
    task, model = _task(device), _model(arm).to(device)
    recipe = RecipeConfig(clip_norm=1.0, optimizer=OptimizerConfig(name="adamw", weight_decay=0.0))
    method = build_method(Config().method)
    runner = StepRunner(model, task, method, recipe, RATE, trainer, World(), device)
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    epochs = count()

    def round_of_steps() -> tuple[float, int]:
        began, masks = perf_counter(), []
        batches = task.train_batches(BATCH, seed=0, epoch=next(epochs))
        for batch in islice(batches, arm["steps"]):
            runner.step(batch, sums)
            masks.append(batch.inputs["attention_mask"])
        finish(arm["device"])
        seconds = perf_counter() - began
        return seconds, sum(int(mask.sum()) for mask in masks)

    shapes = [batch.inputs["attention_mask"] for batch in task.train_batches(BATCH, seed=0, epoch=0)]
    return round_of_steps, {"padded": sum(map(torch.numel, shapes)) / sum(int(mask.sum()) for mask in shapes)}


def trainers(arm: dict[str, Any]) -> tuple[Callable[[], tuple[float, int]], dict[str, Any]]:
    """Return a round of the Trainer's steps, timed inside its loop, and facts."""
    from transformers import (
        DataCollatorWithPadding,
        PreTrainedTokenizerFast,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(0)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer_of_minilm().tokenizer, pad_token="[PAD]")
    grouped = "grouped" in arm["arm"]
    rows = _rows(grouped, tokenizer)
    collator = DataCollatorWithPadding(tokenizer) if grouped else None
    model, tokens = _model(arm).network, []
    seeds, clock = count(), _clock(arm["device"])
    model.register_forward_pre_hook(
        lambda _, args, given: tokens.append(given["attention_mask"]), with_kwargs=True
    )

    def round_of_steps() -> tuple[float, int]:
        tokens.clear()
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
            arguments = TrainingArguments(
                folder, per_device_train_batch_size=BATCH, max_steps=arm["steps"], learning_rate=RATE,
                report_to=[], save_strategy="no", disable_tqdm=True, seed=next(seeds), logging_strategy="no",
                use_cpu=arm["device"] == "cpu", dataloader_pin_memory=False,
                **({"train_sampling_strategy": "group_by_length"} if grouped else {}),
            )  # fmt: skip
            Trainer(model, arguments, collator, rows, callbacks=[clock]).train()
        return clock.seconds, sum(int(mask.sum()) for mask in tokens)

    return round_of_steps, {"padded": None}


def _clock(device: str) -> Any:
    """Return a callback of the Trainer whose `seconds` are those of its loop."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            finish(device)
            self.began = perf_counter()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            finish(device)
            self.seconds = perf_counter() - self.began

    return Clock()


def _rows(grouped: bool, tokenizer: Any) -> list[dict[str, Any]]:
    """Return MRPC as the Trainer's example script makes it: padded to the longest allowed, or not at all."""
    config = DataConfig(name="mrpc", kind="glue")
    examples = data_set(config).load(config).splits[0]
    padding = False if grouped else "max_length"
    encoded = tokenizer(
        *examples.sentences, truncation=True, max_length=LENGTH, padding=padding, return_token_type_ids=True
    )
    return [
        {name: encoded[name][row] for name in ("input_ids", "token_type_ids", "attention_mask")}
        | {"labels": int(label)}
        for row, label in enumerate(examples.labels)
    ]


def _model(arm: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return build_model(convert(model_config(arm["model"]), ModelConfig, "model"), 2, None)


def _task(device: torch.device) -> Any:
    config = load_config(
        {"model": model_config("minilm"), "data": {"name": "mrpc", "kind": "glue", "max_length": LENGTH}}
    )
    return data_set(config.data).task(config, device, torch.float32)


def main() -> None:
    arm = json.loads(sys.argv[1])
    round_of_steps, facts = (ours if arm["arm"] == "cuttlefish" else trainers)(arm)
    round_of_steps()  # the first steps warm the device up
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        seconds, tokens = round_of_steps()
        print(json.dumps(seconds / tokens), flush=True)


if __name__ == "__main__":
    main()
