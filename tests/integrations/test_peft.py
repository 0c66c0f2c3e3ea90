"""Adapters of peft keep their own low rank, and what they adapt stays frozen and dense."""

import pytest
import torch

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from cuttlefish import Cuttlefish, LowRankLinear  # noqa: E402


def test_lora_is_left_alone():
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=50, max_position_embeddings=16, **sizes)
    model = transformers.BertForSequenceClassification(config)
    model = peft.get_peft_model(
        model, peft.LoraConfig(target_modules=["query", "value"], task_type="SEQ_CLS")
    )
    batch = {"input_ids": torch.ones(2, 8, dtype=torch.int64)}
    cf = Cuttlefish(model, batch, k=1, switch_epoch=1, rank_ratio=0.25)
    assert cf.layers == [] and cf.reason == "declined" and not cf.epoch_end()
    reasons = set(cf.kept_dense.values())
    assert {"it is frozen", "it is a low-rank adapter's own matrix"} <= reasons
    assert not any(isinstance(module, LowRankLinear) for module in model.modules())
