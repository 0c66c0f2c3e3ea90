"""Fine-tuning on GLUE's MRPC beside transformers' Trainer, the rest of an epoch, and tokenising."""

import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from cuttlefish.config.schema import DataConfig
from cuttlefish.config.validate import load_config
from cuttlefish.record.folder import read_epochs
from cuttlefish.tasks.registry import data_set
from cuttlefish.tasks.text.tokens import encode
from cuttlefish.worker import run_config
from scripts.benches.glue_arm import model_config, tokenizer_of_minilm
from scripts.benches.turns import Rows, take_turns

STEPS = {"minilm": 28, "bert_base": 4}
"""Steps of a round by model, each of other batches."""
SORTED = 28
"""Batches of MRPC that the Trainer's length grouping sorts at a time, longest first: fewer are no sample."""
NOT_OF_AN_EPOCH = ("evaluate", "start", "switch", "checkpoint")


def bench_glue(device: str, rounds: int, small: bool) -> Rows:
    """Measure our steps against the Trainer's, the rest of an epoch, and tokenising."""
    rows = []
    for model, steps in {"minilm": 4}.items() if small else STEPS.items():
        rows += _against_trainer(model, device, rounds, steps)
    return [*rows, *_outside(device), *_tokenising()]


def _against_trainer(model: str, device: str, rounds: int, steps: int) -> Rows:
    """Compare seconds a token, padding not counted: a round has other sentences in each arm."""
    names = ["cuttlefish", "Trainer, padded to 128"]
    if steps >= SORTED:
        names.append("Trainer, grouped by length")
    arms = [{"arm": name, "model": model, "device": device, "steps": steps} for name in names]
    taken = take_turns("scripts.benches.glue_arm", arms, rounds, device)
    ours = taken.seconds[0]
    return [
        {
            "part": "step",
            "model": model,
            "arm": arm["arm"],
            "s_per_1000_tokens": 1000 * median(seconds),
            "fastest": 1000 * min(seconds),
            "slowest": 1000 * max(seconds),
            "rounds_s": seconds,
            "ours_faster": median(theirs / own for own, theirs in zip(ours, seconds, strict=True)),
            "padded_tokens": facts["padded"],
        }
        for arm, seconds, facts in zip(arms, taken.seconds, taken.facts, strict=True)
    ]


def _outside(device: str) -> Rows:
    """Measure the share of an epoch of MRPC that is not in steps: MiniLM, whose steps are the shortest."""
    with tempfile.TemporaryDirectory() as folder:
        run_config(_run(folder, device))
        parts = read_epochs(folder)[-1]["seconds"]
    parts = {name: seconds for name, seconds in parts.items() if name not in NOT_OF_AN_EPOCH}
    whole = sum(parts.values())
    return [
        {"part": name, "model": "minilm", "seconds": seconds, "share": seconds / whole}
        for name, seconds in parts.items()
    ]


def _run(folder: str, device: str) -> Any:
    return load_config(
        {
            "model": model_config("minilm"),
            "data": {"name": "mrpc", "kind": "glue", "max_length": 128},
            "recipe": {"epochs": 2, "batch_size": 32, "eval_batch_size": 128, "optimizer": {"name": "adamw"}},
            "trainer": {"device": device, "max_steps": 2 * STEPS["minilm"], "max_eval_batches": 1},
            "logger": {"console": False, "plots": False},
            "run_dir": folder,
        }
    )


def _tokenising() -> Rows:
    """Time SST-2's 67,349 sentences, once from the text and once from the cache, reading its files apart."""
    config = DataConfig(name="sst2", kind="glue")
    seconds = {"reading files": perf_counter()}
    sentences = data_set(config).load(config).splits[0].sentences
    seconds["reading files"] = perf_counter() - seconds["reading files"]
    tokenizer = tokenizer_of_minilm()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("tokenising", "from the cache"):
            began = perf_counter()
            encode(tokenizer.tokenizer, tokenizer.digest, sentences, 128, Path(folder))
            seconds[name] = perf_counter() - began
    return [
        {"part": name, "model": "minilm", "sentences": len(sentences[0]), "seconds": value}
        for name, value in seconds.items()
    ]
