from itertools import islice

import numpy as np
import pytest
import torch

from cuttlefish.tasks.text.sentences import ResidentSentences
from cuttlefish.tasks.text.tokens import Encoded

COUNT, BATCH = 101, 8


def made_up(count=COUNT, **settings):
    """Sentences of 3 to 40 tokens; sentence i has the target i and the tokens 1000 i, 1000 i + 1, ..."""
    lengths = np.random.RandomState(0).randint(3, 41, count)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.concatenate([1000 * i + np.arange(n) for i, n in enumerate(lengths)]).astype(np.int32)
    types = np.concatenate([np.arange(n) >= n // 2 for n in lengths]).astype(np.uint8)
    encoded = Encoded(ids, types, starts)
    return ResidentSentences(encoded, np.arange(count), pad_id=-1, token_types=True, **settings), lengths


def epoch(sentences, **options):
    return list(sentences.train_batches(BATCH, **{"seed": 1, "epoch": 0} | options))


def members(batches):
    return [batch.targets.tolist() for batch in batches]


def test_a_batch_holds_each_sentence_padded():
    sentences, lengths = made_up()
    for batch in epoch(sentences):
        ids, mask, types = (batch.inputs[key] for key in ("input_ids", "attention_mask", "token_type_ids"))
        assert ids.dtype == mask.dtype == types.dtype == torch.int64
        for row, one in enumerate(batch.targets.tolist()):
            n = lengths[one]
            assert ids[row].tolist() == [*range(1000 * one, 1000 * one + n), *[-1] * (ids.shape[1] - n)]
            assert mask[row].tolist() == [1] * n + [0] * (ids.shape[1] - n)
            assert types[row].tolist() == [0] * (n // 2) + [1] * (n - n // 2) + [0] * (ids.shape[1] - n)


def test_an_epoch_has_every_sentence_once_in_few_shapes():
    sentences, _ = made_up()
    batches = epoch(sentences)
    assert sorted(sum(members(batches), [])) == list(range(COUNT))
    assert [len(batch) for batch in batches] == [BATCH] * 12 + [5]
    assert {batch.inputs["input_ids"].shape[1] for batch in batches} <= set(sentences.padded)
    assert len(sentences.padded) <= 16


def test_batches_are_of_similar_length_and_shuffled():
    sentences, lengths = made_up(1000)
    batches = epoch(sentences)
    longest = [batch.inputs["input_ids"].shape[1] for batch in batches]
    assert longest != sorted(longest)
    padded = sum(batch.inputs["input_ids"].numel() for batch in batches)
    assert padded < 1.1 * lengths.sum()
    neighbours = {frozenset(batch) for batch in members(batches)}
    assert not neighbours & {frozenset(batch) for batch in members(epoch(sentences, epoch=1))}


def test_the_last_batch_is_a_random_rest():
    sentences, lengths = made_up()
    rests = [epoch(sentences, seed=seed)[-1].targets.tolist() for seed in range(40)]
    assert len(set(map(tuple, rests))) == 40
    assert np.mean(lengths[np.concatenate(rests)]) == pytest.approx(lengths.mean(), rel=0.15)


def test_order_depends_on_seed_and_epoch_alone():
    sentences, _ = made_up()
    assert members(epoch(sentences)) == members(epoch(made_up()[0]))
    assert members(epoch(sentences)) != members(epoch(sentences, seed=2))
    assert members(epoch(sentences)) != members(epoch(sentences, epoch=1))


def test_an_epoch_goes_on_at_any_step():
    sentences, _ = made_up()
    whole = members(epoch(sentences))
    assert all(members(epoch(sentences, first=step)) == whole[step:] for step in range(len(whole) + 1))


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_shares_make_up_the_global_batches(processes):
    sentences, _ = made_up()
    shares = [epoch(sentences, process=process, processes=processes) for process in range(processes)]
    for whole, *parts in zip(epoch(sentences), *shares, strict=True):
        assert sum(members(parts), []) == whole.targets.tolist()
        assert {part.global_size for part in parts} == {len(whole)}
        assert {part.inputs["input_ids"].shape[1] for part in parts} == {whole.inputs["input_ids"].shape[1]}


def test_evaluation_has_every_sentence_once_by_length():
    sentences, lengths = made_up()
    order = sum(members(sentences.eval_batches(10)), [])
    assert sorted(order) == list(range(COUNT)) and lengths[order].tolist() == sorted(lengths)


def test_examples_and_samples_are_always_the_same():
    sentences, _ = made_up()
    assert sentences.example(6).targets.tolist() == made_up()[0].example(6).targets.tolist()
    assert len(sentences.example(500)) == COUNT
    first = members(islice(sentences.samples(BATCH, seed=1), 30))
    assert sorted(sum(first[:13], [])) == list(range(COUNT)) and first != members(epoch(sentences))[:30]
    assert members(islice(sentences.samples(BATCH, seed=1, order=1), 10)) == first[13:23]


def test_shapes_are_those_of_training():
    sentences, _ = made_up()
    shapes = [tuple(batch.inputs["input_ids"].shape) for batch in sentences.shapes(BATCH)]
    assert shapes == [(BATCH, length) for length in sentences.padded]


def test_no_token_types_where_the_model_has_none():
    encoded = Encoded(np.arange(4, dtype=np.int32), np.zeros(4, np.uint8), np.array([0, 4]))
    sentences = ResidentSentences(encoded, np.zeros(1, np.int64), pad_id=0, token_types=False)
    assert set(sentences.example(1).inputs) == {"input_ids", "attention_mask"}
