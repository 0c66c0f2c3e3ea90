"""What is found in transformers' text models: embeddings are the first layer, poolers belong to the head."""

import pytest
import timm
import torch

from cuttlefish import Cuttlefish, CuttlefishError
from cuttlefish.lowrank.path import candidates, is_transformer, main_path, why_dense
from cuttlefish.lowrank.profiling import profile_stacks

COMMON = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
}
DISTIL = {
    "vocab_size": 50,
    "dim": 32,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 64,
    "max_position_embeddings": 32,
}
transformers = pytest.importorskip("transformers", reason="the extra `text` is not installed")
IDS = torch.arange(3, 35).view(4, 8)
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
POOLED = "it works on one vector a sample, behind all tokens, as part of the head"
OUTPUT = "it feeds the model's output"


def text_model(kind):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **(DISTIL if kind == "distilbert" else COMMON))
    return transformers.AutoModelForSequenceClassification.from_config(config)


@pytest.mark.parametrize(
    ("kind", "first", "pooler", "head"),
    [
        ("bert", "bert.encoder.layer.0.attention.self.query", "bert.pooler.dense", "classifier"),
        ("distilbert", "distilbert.transformer.layer.0.attention.q_lin", "pre_classifier", "classifier"),
        (
            "roberta",
            "roberta.encoder.layer.0.attention.self.query",
            "classifier.dense",
            "classifier.out_proj",
        ),
    ],
)
def test_all_layers_of_all_blocks_and_nothing_else(kind, first, pooler, head):
    model = text_model(kind)
    path = main_path(model, BATCH)
    names = candidates(model, path)
    assert len(names) == 12 and names[0] == first and is_transformer(path, names)
    assert candidates(model, path, 0) == names and candidates(model, path, 2) == names[1:]
    assert why_dense(model, path, names, 1) == {pooler: POOLED, head: OUTPUT}
    with pytest.raises(CuttlefishError, match="K = 15 .* the main path has 15 layers"):
        candidates(model, path, 15)


def test_bert_is_factorized_without_a_clock():
    cf = Cuttlefish(text_model("bert"), BATCH, epochs=10, switch_epoch=1, rank_ratio=0.25)
    assert cf.k == 1 and cf.profile is None and cf.epoch_end()
    assert len(cf.final_ranks()) == 12 and set(cf.final_ranks().values()) == {8}
    assert cf.model(**BATCH).logits.shape == (4, 2)


def test_a_profile_of_bert_counts_the_embeddings():
    profile = profile_stacks(text_model("bert"), BATCH, repeats=2, threshold=0.0)
    assert profile.k == 1 and len(profile.layers) == 12 and len(profile.stacks) == 2
    assert profile_stacks(text_model("bert"), BATCH, repeats=2, threshold=1000).k == 15


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "vit_tiny_patch16_224"])
def test_vision_transformers_begin_with_their_patches(name):
    model = timm.create_model(name, num_classes=3, depth=2)
    path = main_path(model, torch.randn(1, 3, 224, 224))
    names = candidates(model, path)
    assert len(path) == 10 and len(names) == 8 and is_transformer(path, names)
    assert why_dense(model, path, names, 1) == {
        "patch_embed.proj": "it is among the leading dense layers (K = 1)",
        "head": OUTPUT,
    }


def test_patterns_keep_layers_dense_and_freeze_them():
    knobs = {"switch_epoch": 1, "rank_ratio": 0.25, "freeze": ["*.intermediate.dense"]}
    cf = Cuttlefish(text_model("bert"), BATCH, dense=["*.intermediate.dense", "*.?.output.dense"], **knobs)
    assert all(parameter.requires_grad for parameter in cf.model.parameters()) and cf.epoch_end()
    assert len(cf.final_ranks()) == 8 and all(".attention." in name for name in cf.final_ranks())
    assert cf.kept_dense["bert.encoder.layer.0.output.dense"] == "dense names it"
    frozen = {name for name, parameter in cf.model.named_parameters() if not parameter.requires_grad}
    assert len(frozen) == 4 and all(".intermediate.dense." in name for name in frozen)
    again = Cuttlefish(text_model("bert"), BATCH, state=cf.state_dict())
    assert frozen == {name for name, value in again.model.named_parameters() if not value.requires_grad}
    with pytest.raises(CuttlefishError, match=r"freeze names '\*.intermediat.dense', which is no layer"):
        Cuttlefish(text_model("bert"), BATCH, freeze=["*.intermediat.dense"], switch_epoch=1, rank_ratio=0.5)
