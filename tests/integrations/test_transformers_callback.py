"""The callback in transformers' own Trainer on a tiny BERT, and its files."""

import json
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
)

from cuttlefish import Cuttlefish, CuttlefishError, LowRankLinear  # noqa: E402
from cuttlefish.integrations.transformers import CuttlefishCallback, _write_plan, from_pretrained  # noqa: E402

KNOBS = {"switch_epoch": 2, "rank_ratio": 0.25}


def model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return BertForSequenceClassification(BertConfig(vocab_size=50, max_position_embeddings=16, **sizes))


def samples():
    generator = torch.Generator().manual_seed(1)
    for index in range(16):
        ids = torch.randint(1, 50, (8,), generator=generator)
        yield {"input_ids": ids, "attention_mask": torch.ones(8, dtype=torch.int64), "labels": index % 2}


def trainer(folder, network, callback, **options):
    chosen = {"max_steps": 6, "save_steps": 4, "learning_rate": 1e-3, "weight_decay": 0.01} | options
    args = TrainingArguments(
        folder, per_device_train_batch_size=4, use_cpu=True, report_to=[], disable_tqdm=True, seed=0, **chosen
    )
    data = list(samples())
    return Trainer(network, args, train_dataset=data, eval_dataset=data[:4], callbacks=[callback])


def low_rank(network):
    return {
        name: module.rank for name, module in network.named_modules() if isinstance(module, LowRankLinear)
    }


@pytest.mark.parametrize("decay", [0.0, 1e-3])
def test_it_switches_within_an_epoch_and_trains_on(tmp_path, decay):
    network, callback = model(), CuttlefishCallback(interval=1, frobenius_decay=decay, **KNOBS)
    training = trainer(tmp_path, network, callback)
    training.train()
    core = callback.core
    assert core.switch_epoch == 2 and core.epochs == 6 and len(low_rank(network)) == 12
    held = {id(p) for group in training.optimizer.param_groups for p in group["params"]}
    assert held == set(map(id, network.parameters()))
    states = training.optimizer.state
    assert all(
        states[layer.weight]["step"] == 4 for layer in (network.bert.encoder.layer[0].output.dense.first,)
    )
    assert states[network.classifier.weight]["step"] == 6


def test_whole_epochs_count_without_an_interval(tmp_path):
    network, callback = model(), CuttlefishCallback(switch_epoch=1, rank_ratio=0.25)
    trainer(tmp_path, network, callback, max_steps=-1, num_train_epochs=2).train()
    assert callback.core.switch_epoch == 1 and low_rank(network)


def test_a_saved_model_keeps_its_ranks(tmp_path):
    network, callback = model(), CuttlefishCallback(interval=1, **KNOBS)
    training = trainer(tmp_path / "runs", network, callback)
    training.train()
    training.save_model(tmp_path / "small")
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        expected = network.eval()(input_ids=ids).logits
        for kind in (AutoModelForSequenceClassification, BertForSequenceClassification):
            again = from_pretrained(kind, tmp_path / "small")
            assert low_rank(again) == low_rank(network)
            torch.testing.assert_close(again(input_ids=ids).logits, expected, rtol=0, atol=0)
    model().save_pretrained(tmp_path / "dense")
    with pytest.raises(CuttlefishError, match="has no plan"):
        from_pretrained(BertForSequenceClassification, tmp_path / "dense")
    (tmp_path / "small" / "model.safetensors").write_text("torn")
    with pytest.raises(CuttlefishError, match="is no safetensors file"):
        from_pretrained(BertForSequenceClassification, tmp_path / "small")


@pytest.mark.parametrize("saved_at", [1, 4])
def test_a_checkpoint_goes_on(tmp_path, saved_at):
    network = model()
    trainer(tmp_path / "whole", network, CuttlefishCallback(interval=1, **KNOBS), save_steps=saved_at).train()
    folder = tmp_path / "whole" / f"checkpoint-{saved_at}"
    assert json.loads((folder / "cuttlefish.json").read_text())["steps"] == saved_at
    callback = CuttlefishCallback(interval=1, resume=folder)
    again = callback.prepare(model())
    trainer(tmp_path / "rest", again, callback, save_steps=100).train(resume_from_checkpoint=str(folder))
    assert callback.core.switch_epoch == 2 and low_rank(again) == low_rank(network)
    torch.testing.assert_close(again.state_dict(), network.state_dict(), rtol=1e-5, atol=1e-6)


def test_resuming_needs_a_prepared_model(tmp_path):
    (tmp_path / "cuttlefish.json").write_text("{}")
    with pytest.raises(CuttlefishError, match="call prepare"):
        trainer(tmp_path, model(), CuttlefishCallback(resume=tmp_path)).train()


def test_several_processes_are_refused(tmp_path):
    network, callback = model(), CuttlefishCallback(interval=1, **KNOBS)
    training = trainer(tmp_path, network, callback)
    two = SimpleNamespace(world_size=2)
    with pytest.raises(CuttlefishError, match="was given 2 processes, whose DDP would go on"):
        callback.on_train_begin(two, training.state, training.control, model=network)
    assert callback.core is None and not low_rank(network)


@pytest.mark.parametrize("content", [None, "", "[]", "[" * 100_000])
def test_a_damaged_state_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "cuttlefish.json").write_text(content)
    with pytest.raises(CuttlefishError, match="cuttlefish.json"):
        CuttlefishCallback(resume=tmp_path)


SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
RENAMED = {
    "vit": (
        lambda: transformers.ViTForImageClassification(
            transformers.ViTConfig(image_size=16, patch_size=8, **SIZES)
        ),
        {"pixel_values": torch.ones(2, 3, 16, 16)},
    ),
    "experts": (
        lambda: transformers.Qwen2MoeForCausalLM(
            transformers.Qwen2MoeConfig(
                vocab_size=50, num_experts=4, num_key_value_heads=2, moe_intermediate_size=32,
                shared_expert_intermediate_size=32, **SIZES,
            )
        ),
        {"input_ids": torch.arange(1, 9)[None]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", RENAMED)
def test_what_transformers_saves_under_other_names_is_loaded(tmp_path, kind):
    build, batch = RENAMED[kind]
    network = build().eval()
    assert Cuttlefish(network, batch, k=1, switch_epoch=1, rank_ratio=0.25).epoch_end()
    _write_plan(network)  # as the callback does at the switch
    network.save_pretrained(tmp_path / "once")
    from_pretrained(type(network), tmp_path / "once").save_pretrained(tmp_path / "twice")
    again = from_pretrained(type(network), tmp_path / "twice")
    with torch.no_grad():
        assert low_rank(again) and torch.equal(again(**batch)[0], network(**batch)[0])


def test_the_best_model_at_the_end_is_a_low_rank_one(tmp_path):
    scores = iter([9.0, 3.0, 4.0, 2.0, 1.0, 1.0])
    network, callback = model(), CuttlefishCallback(interval=1, **KNOBS)
    training = trainer(
        tmp_path, network, callback, eval_strategy="steps", eval_steps=1, save_steps=1, max_steps=5,
        load_best_model_at_end=True, metric_for_best_model="score",
    )  # fmt: skip
    training.compute_metrics = lambda _: {"score": next(scores)}
    training.train()
    assert training.state.best_model_checkpoint == str(tmp_path / "checkpoint-3")
    best = load_file(tmp_path / "checkpoint-3" / "model.safetensors")
    assert all(torch.equal(value, best[name]) for name, value in network.state_dict().items())
