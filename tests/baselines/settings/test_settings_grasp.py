"""What GraSP passes from its settings to the scores and to the choice of what is kept."""

from copy import deepcopy

import pytest
import torch

from baselines.grasp.method import chunks
from baselines.grasp.scores import Samples, choose_masks, draw_per_class, removals, scores, split_parts
from cuttlefish.engine.run import resolve_run
from cuttlefish.engine.session import Session
from tests.helpers.runs import METHODS, little_config


def session(folder, **overrides) -> Session:
    return Session(resolve_run(little_config(folder, "grasp", **overrides)))


def same(masks, others) -> bool:
    return all(torch.equal(masks[name], others[name]) for name in masks)


def test_logits_are_divided_by_the_temperature_that_is_set(tmp_path):
    run = session(tmp_path, method__temperature=0.5)
    drawn = split_parts(
        draw_per_class(Samples(chunks(run.context)), 4, METHODS["grasp"]["samples_per_class"]), None, 0
    )
    expected = {}
    for temperature in (0.5, 200.0):
        found = scores(deepcopy(run.context.model).train(), lambda: drawn, temperature=temperature)
        total = sum(score.numel() for score in found.values())
        expected[temperature] = choose_masks(found, removals(METHODS["grasp"]["ratio"], total))
    run.method.on_fit_start(run.context)
    assert same(run.method.masks, expected[0.5]) and not same(run.method.masks, expected[200.0])


@pytest.mark.parametrize(("mode", "more"), [("exact_k", 0), ("original", 1)])
def test_the_original_s_threshold_itself_stays(tmp_path, mode, more):
    run = session(tmp_path, method__mode=mode)
    run.method.on_fit_start(run.context)
    masks = run.method.masks
    assert masks.kept == masks.total - removals(METHODS["grasp"]["ratio"], masks.total, mode) + more


@pytest.fixture
def tf32():
    """Where the two flags are, which are afterwards as before; they are no plain attributes that monkeypatch
    could put back."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    earlier = matmul.allow_tf32, cudnn.allow_tf32
    yield matmul, cudnn
    matmul.allow_tf32, cudnn.allow_tf32 = earlier


def test_no_tf32_while_scoring_and_the_flags_come_back(tmp_path, tf32):
    run, (matmul, cudnn), seen = session(tmp_path), tf32, []
    matmul.allow_tf32 = cudnn.allow_tf32 = True
    run.context.model.register_forward_pre_hook(
        lambda module, _: seen.append((module.training, matmul.allow_tf32, cudnn.allow_tf32))
    )
    run.method.on_fit_start(run.context)
    scored = [flags for training, *flags in seen if training]
    assert scored == [[False, False]] * 4, "two halves, each in two passes"
    assert matmul.allow_tf32 and cudnn.allow_tf32
