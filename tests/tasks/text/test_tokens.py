import multiprocessing

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from cuttlefish.tasks.text import tokens
from cuttlefish.tasks.text.tokens import encode, tokenise


@pytest.fixture
def tokenizer():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"]
    made = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return made


def rows(encoded, what="ids"):
    return [part.tolist() for part in np.split(getattr(encoded, what), encoded.starts[1:-1])]


def test_single_sentences_and_pairs(tokenizer):
    assert rows(tokenise(tokenizer, [["a b", "z"]], 8)) == [[2, 4, 5, 3], [2, 1, 3]]
    pair = tokenise(tokenizer, [["a b"], ["c"]], 8)
    assert rows(pair) == [[2, 4, 5, 3, 6, 3]] and rows(pair, "types") == [[0, 0, 0, 0, 1, 1]]


def test_sentences_are_encoded_in_portions(tokenizer, monkeypatch):
    texts = [" ".join("abcdefgh"[: n % 8 + 1]) for n in range(50)]
    whole = tokenise(tokenizer, [texts], 8)
    monkeypatch.setattr(tokens, "AT_ONCE", 7)
    assert rows(tokenise(tokenizer, [texts], 8)) == rows(whole) and whole.starts.dtype == np.int64


def test_the_longer_sentence_is_cut(tokenizer):
    assert rows(tokenise(tokenizer, [["a b c d e f"], ["g h"]], 8)) == [[2, 4, 5, 6, 3, 10, 11, 3]]


def test_the_tokenizer_stays_as_it_was(tokenizer):
    tokenizer.enable_padding(length=20)
    before = tokenizer.to_str()
    assert rows(tokenise(tokenizer, [["a"]], 8)) == [[2, 4, 3]] and tokenizer.to_str() == before


def test_the_cache_is_read_instead_of_the_tokenizer(tokenizer, tmp_path, monkeypatch):
    first = encode(tokenizer, "t", [["a b", "c"]], 8, tmp_path)
    monkeypatch.setattr(tokens, "tokenise", None)
    second = encode(tokenizer, "t", [["a b", "c"]], 8, tmp_path)
    assert rows(first) == rows(second) and first.ids.dtype == second.ids.dtype == np.int32


@pytest.mark.parametrize(
    ("digest", "sentences", "length"),
    [("u", [["ab", "c"]], 8), ("t", [["a", "bc"]], 8), ("t", [["ab"], ["c"]], 8), ("t", [["ab", "c"]], 4)],
)
def test_the_key_is_all_that_changes_the_tokens(tokenizer, tmp_path, digest, sentences, length):
    encode(tokenizer, "t", [["ab", "c"]], 8, tmp_path)
    encode(tokenizer, digest, sentences, length, tmp_path)
    assert len(list((tmp_path / "tokens").iterdir())) == 2


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-30], lambda data: b"", lambda data: data[:300] + b"x" + data[301:]]
)
def test_a_damaged_cache_is_written_again(tokenizer, tmp_path, damage):
    whole = encode(tokenizer, "t", [["a b c d"] * 50], 8, tmp_path)
    [file] = (tmp_path / "tokens").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert rows(encode(tokenizer, "t", [["a b c d"] * 50], 8, tmp_path)) == rows(whole)


def test_a_cache_that_cannot_be_written_costs_nothing_else(tokenizer, tmp_path):
    (tmp_path / "file").write_text("")
    assert rows(encode(tokenizer, "t", [["a"]], 8, tmp_path / "file")) == [[2, 4, 3]]


def _encode(text, folder):
    encode(Tokenizer.from_str(text), "t", [["a b c"] * 500], 8, folder)


def test_processes_that_encode_at_once_agree(tokenizer, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=_encode, args=(tokenizer.to_str(), tmp_path)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert [path.suffix for path in (tmp_path / "tokens").iterdir()] == [".npz"]
