"""What is done to a batch on the device."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot
from torchvision.transforms import v2

from cuttlefish.tasks.folder.mixing import Mixed, Normalised, erase

CPU = torch.device("cpu")


def test_normalisation_is_torchvision_s():
    pixels = torch.randint(0, 256, (2, 5, 4, 3), dtype=torch.uint8)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    images = Normalised(mean, std, CPU, torch.float32)(pixels)
    steps = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    torch.testing.assert_close(images, steps(pixels.permute(0, 3, 1, 2)))


def test_an_image_is_erased_by_its_own_integer():
    images = torch.zeros(40, 3, 24, 20)
    words = list(range(100, 140))
    erase(images, words, 0.25)
    erased = images.abs().sum((1, 2, 3)) > 0
    assert 4 <= erased.sum() <= 16
    again = torch.zeros(1, 3, 24, 20)
    number = int(erased.nonzero()[0])
    erase(again, [words[number]], 0.25)
    assert torch.equal(again[0], images[number])
    area = (images[erased][:, 0] != 0).float().mean((1, 2))
    assert area.min() > 0.015 and area.max() < 0.36
    untouched = torch.zeros(3, 3, 8, 8)
    erase(untouched, [1, 2, 3], 0.0)
    assert not untouched.any()


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_pairs_are_mixed_by_the_shares_of_their_labels(mixup, cutmix):
    """Images of constant pixels tell how much of each is in a mixed one."""
    labels = torch.arange(6)
    for word in range(8):
        images = (labels + 1.0).view(6, 1, 1, 1).repeat(1, 3, 16, 16)
        mixed, targets = Mixed(mixup, cutmix, 0.5, 6)(images, labels, word)
        torch.testing.assert_close(targets.sum(1), torch.ones(6))
        torch.testing.assert_close(mixed.mean((1, 2, 3)), targets @ (torch.arange(6) + 1.0))
        partners = [set(row.nonzero().flatten().tolist()) for row in targets]
        assert all(
            found <= {first // 2 * 2, first // 2 * 2 + 1} for found in partners for first in [min(found)]
        )


def test_processes_mix_as_one_and_an_odd_last_image_stays():
    labels = torch.arange(7) % 3
    images = torch.randn(7, 3, 8, 8)
    mix = Mixed(0.8, 1.0, 0.5, 3)
    whole = mix(images.clone(), labels, 4)
    parts = [mix(images[part].clone(), labels[part], 4) for part in (slice(0, 2), slice(2, 2), slice(2, 7))]
    for one, several in zip(whole, zip(*parts, strict=True), strict=True):
        key = [np.round(row.flatten().sum().item(), 3) for row in one]
        assert sorted(key) == sorted(
            np.round(row.flatten().sum().item(), 3) for own in several for row in own
        )
    torch.testing.assert_close(whole[0][6], images[6])
    assert torch.equal(whole[1][6], one_hot(labels[6], 3).float())


def test_smoothing_in_the_reference_s_form_is_a_larger_epsilon():
    """0.9 for the class and 0.1 / (C - 1) for every other one; see conf/recipe/imagenet_cnn.yaml."""
    logits, labels = torch.randn(5, 1000, dtype=torch.float64), torch.randint(0, 1000, (5,))
    targets = torch.full((5, 1000), 0.1 / 999, dtype=torch.float64).scatter_(1, labels[:, None], 0.9)
    smoothed = cross_entropy(logits, labels, label_smoothing=0.1001001)
    torch.testing.assert_close(smoothed, cross_entropy(logits, targets), rtol=1e-6, atol=0)
