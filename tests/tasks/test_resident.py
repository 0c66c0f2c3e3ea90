import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chi2_contingency, chisquare
from torchvision.transforms import functional as TF

from cuttlefish.tasks.resident import ResidentImages

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PADDING, SIDE = 4, 32


def noise(count: int, height: int = SIDE, width: int = SIDE) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def resident(images: torch.Tensor, **options) -> ResidentImages:
    """Labels are the image numbers, so that a batch says whom it shows."""
    settings = {"mean": MEAN, "std": STD, "crop_padding": PADDING, "flip": True} | options
    return ResidentImages(images, torch.arange(len(images)), **settings)


def surveyor(count: int, **options) -> ResidentImages:
    """Each pixel holds its own row and column plus one, so that a shown image says how it was cropped."""
    place = torch.arange(1, SIDE + 1, dtype=torch.uint8)
    image = torch.stack(
        [
            place[:, None].expand(SIDE, SIDE),
            place.expand(SIDE, SIDE),
            torch.zeros(SIDE, SIDE, dtype=torch.uint8),
        ],
        -1,
    )
    return resident(image.expand(count, -1, -1, -1), mean=[0, 0, 0], std=[1 / 255] * 3, **options)


def survey(batches) -> torch.Tensor:
    """Rows (dy, dx, flipped), by image number, read off what the batches of a surveyor show."""
    shown, numbers = (
        torch.cat(parts) for parts in zip(*((batch.inputs, batch.targets) for batch in batches), strict=True)
    )
    row, column, next_column = (
        shown[:, channel, SIDE // 2, x].round().long() - 1 for channel, x in ((0, 16), (1, 16), (1, 17))
    )
    flipped = next_column < column
    dx = torch.where(flipped, column - (SIDE - 1 - 16), column - 16) + PADDING
    return torch.stack([row - 16 + PADDING, dx, flipped.long()], 1)[numbers.argsort()]


def reference(image: torch.Tensor, dy: int, dx: int, flipped: int) -> torch.Tensor:
    """The usual pipeline on a PIL image, with its random choices given."""
    picture = TF.pad(Image.fromarray(image.numpy()), PADDING)
    picture = TF.crop(picture, dy, dx, image.shape[0], image.shape[1])
    picture = TF.hflip(picture) if flipped else picture
    return TF.normalize(TF.to_tensor(picture), MEAN, STD)


def collected(batches) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*((batch.inputs, batch.targets) for batch in batches), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_training_images_are_torchvisions_bit_for_bit():
    pixels = noise(60)
    drawn = survey(surveyor(60).batches(60, seed=1, epoch=2, train=True))
    images, numbers = collected(resident(pixels).batches(60, seed=1, epoch=2, train=True))
    assert len(drawn[:, 2].unique()) == 2 and len(drawn[:, 0].unique()) > 5
    for image, number in zip(images, numbers.tolist(), strict=True):
        assert torch.equal(image, reference(pixels[number], *drawn[number].tolist()))


def test_oblong_images_too():
    pixels = noise(20, height=9, width=14)
    images, numbers = collected(resident(pixels, crop_padding=1).batches(7, seed=0, epoch=0, train=True))
    for image, number in zip(images, numbers.tolist(), strict=True):
        wide = TF.to_tensor(TF.pad(Image.fromarray(pixels[number].numpy()), 1))
        candidates = [
            TF.normalize(crop.flip(2) if flipped else crop, MEAN, STD)
            for dy, dx, flipped in itertools.product(range(3), range(3), (False, True))
            for crop in [wide[:, dy : dy + 9, dx : dx + 14]]
        ]
        assert any(torch.equal(image, candidate) for candidate in candidates)


def test_evaluation_images_are_torchvisions_in_order():
    pixels = noise(25)
    images, numbers = collected(resident(pixels).batches(10, train=False))
    assert numbers.tolist() == list(range(25))
    for image, number in zip(images, numbers.tolist(), strict=True):
        assert torch.equal(image, TF.normalize(TF.to_tensor(pixels[number].numpy()), MEAN, STD))


def test_images_in_float64_are_computed_in_float64():
    pixels = noise(5)
    images, _ = collected(resident(pixels, dtype=torch.float64).batches(5, train=False))
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (MEAN, STD))
    expected = ((pixels.double() / 255 - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(torch.stack(list(images)), expected, rtol=1e-14, atol=1e-14)


def test_layout_and_types():
    batch = next(iter(resident(noise(8)).batches(8, seed=0, epoch=0, train=True)))
    assert batch.inputs.shape == (8, 3, SIDE, SIDE) and batch.inputs.dtype == torch.float32
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
    assert batch.targets.dtype == torch.int64 and batch.global_size == 8


def test_offsets_and_mirroring_are_uniform_and_independent():
    drawn = survey(surveyor(6_000).batches(1000, seed=3, epoch=0, train=True))
    cells = torch.zeros(9, 9, 2).index_put_(tuple(drawn.T), torch.ones(len(drawn)), accumulate=True)
    assert chisquare(cells.flatten()).pvalue > 1e-3
    later = survey(surveyor(6_000).batches(1000, seed=3, epoch=1, train=True))
    for column, limit in ((0, 9), (1, 9), (2, 2)):
        for other in (later[:, column], drawn[:, column].roll(1)):
            table = torch.zeros(limit, limit).index_put_(
                (drawn[:, column], other), torch.ones(len(drawn)), accumulate=True
            )
            assert chi2_contingency(table).pvalue > 1e-3


def test_order_is_a_uniform_permutation():
    data = resident(noise(6, 4, 4), crop_padding=0, flip=False)
    places = torch.stack(
        [collected(data.batches(6, seed=5, epoch=epoch, train=True))[1] for epoch in range(300)]
    )
    assert torch.equal(places.sort(1).values, torch.arange(6).expand(300, 6))
    table = torch.stack([torch.bincount(column, minlength=6) for column in places.T])
    assert chi2_contingency(table).pvalue > 1e-3


def test_randomness_is_a_function_of_seed_epoch_and_image():
    data = surveyor(200)
    base = survey(data.batches(200, seed=0, epoch=0, train=True))
    for size, seed, epoch, same in (
        (200, 0, 0, True),
        (7, 0, 0, True),
        (200, 1, 0, False),
        (200, 0, 1, False),
    ):
        assert torch.equal(survey(data.batches(size, seed=seed, epoch=epoch, train=True)), base) == same
    shorter = survey(surveyor(50).batches(8, seed=0, epoch=0, train=True))
    assert torch.equal(shorter, base[:50])


def test_order_does_not_depend_on_the_batch_size():
    data = resident(noise(50))
    images, numbers = collected(data.batches(50, seed=4, epoch=9, train=True))
    again, same_numbers = collected(data.batches(16, seed=4, epoch=9, train=True))
    assert torch.equal(numbers, same_numbers) and torch.equal(images, again)


@settings(deadline=None, max_examples=40)
@given(number=st.integers(1, 40), size=st.integers(1, 50), processes=st.integers(1, 7), train=st.booleans())
def test_shares_join_to_the_batches_of_one_process(number, size, processes, train):
    data = resident(noise(number, 3, 3), crop_padding=1)
    alone = list(data.batches(size, seed=2, epoch=3, train=train))
    shares = [
        list(data.batches(size, seed=2, epoch=3, train=train, process=r, processes=processes))
        for r in range(processes)
    ]
    assert {len(share) for share in shares} == {len(alone)} == {-(-number // size)}
    for step, batch in enumerate(alone):
        parts = [share[step] for share in shares]
        assert torch.equal(torch.cat([part.inputs for part in parts]), batch.inputs)
        assert torch.equal(torch.cat([part.targets for part in parts]), batch.targets)
        assert {part.global_size for part in parts} == {batch.global_size} == {len(batch.targets)}
        assert max(len(part.targets) for part in parts) - min(len(part.targets) for part in parts) <= 1
    assert torch.cat([batch.targets for batch in alone]).sort().values.tolist() == list(range(number))


def test_an_empty_share_still_takes_part():
    share = list(resident(noise(5)).batches(4, seed=0, epoch=0, train=True, process=0, processes=4))
    assert [len(batch.inputs) for batch in share] == [1, 0]
    assert share[1].inputs.shape == (0, 3, SIDE, SIDE) and share[1].global_size == 1


def test_the_last_batch_is_kept():
    assert [batch.global_size for batch in resident(noise(50)).batches(16, seed=0, epoch=0, train=True)] == [
        16,
        16,
        16,
        2,
    ]


def test_no_flip_and_no_padding_leave_images_as_they_are():
    drawn = survey(surveyor(100, flip=False).batches(100, seed=0, epoch=0, train=True))
    assert drawn[:, 2].sum() == 0 and len(drawn[:, 0].unique()) == 9
    pixels = noise(30)
    data = resident(pixels, crop_padding=0, flip=False)
    images, numbers = collected(data.batches(30, seed=0, epoch=0, train=True))
    plain, _ = collected(data.batches(30, train=False))
    assert torch.equal(images, plain[numbers])


def test_samples_are_endless_augmented_and_apart_from_training():
    data = resident(noise(40))
    taken = list(itertools.islice(data.samples(16, seed=0), 9))
    assert [len(batch) for batch in taken] == [16, 16, 8] * 3
    rounds = [torch.cat([batch.targets for batch in taken[start : start + 3]]) for start in (0, 3, 6)]
    training = [collected(data.batches(16, seed=0, epoch=epoch, train=True)) for epoch in range(3)]
    orders = [tuple(order.tolist()) for order in [*rounds, *(numbers for _, numbers in training)]]
    assert len(set(orders)) == 6 and all(sorted(order) == list(range(40)) for order in orders)
    again = list(itertools.islice(data.samples(16, seed=0), 9))
    assert all(torch.equal(one.inputs, same.inputs) for one, same in zip(taken, again, strict=True))
    first = torch.cat([batch.inputs for batch in taken[:3]])[rounds[0].argsort()]
    assert not torch.equal(first, training[0][0][training[0][1].argsort()])
    assert not torch.equal(next(data.samples(16, seed=1)).targets, taken[0].targets)


def test_the_example_is_always_the_same_plain_batch():
    pixels = noise(40)
    data = resident(pixels)
    example = data.example(16)
    images, labels = example.inputs, example.targets
    next(data.samples(4, seed=0))
    assert torch.equal(data.example(16).inputs, images)
    assert len(set(labels.tolist())) == 16 and labels.tolist() != list(range(16))
    assert torch.equal(images[3], TF.normalize(TF.to_tensor(pixels[labels[3]].numpy()), MEAN, STD))
    assert len(data.example(100)) == 40


def test_images_are_given_back_as_they_came():
    pixels = noise(10, 5, 8)
    for options in ({}, {"crop_padding": 0, "flip": False}, {"flip": False}):
        assert torch.equal(resident(pixels, **options).images, pixels)
    array = ResidentImages(pixels.numpy(), np.arange(10), mean=MEAN, std=STD)
    assert torch.equal(array.images, pixels) and array.input_shape == (3, 5, 8)


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    data = resident(noise(20))
    list(data.batches(8, seed=0, epoch=0, train=True))
    next(data.samples(8, seed=0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_shows_the_same():
    pixels = noise(100)
    images, numbers = collected(resident(pixels, device="cuda").batches(32, seed=0, epoch=0, train=True))
    same, same_numbers = collected(resident(pixels).batches(32, seed=0, epoch=0, train=True))
    assert torch.equal(numbers.cpu(), same_numbers)
    torch.testing.assert_close(images.cpu(), same, rtol=0, atol=1e-6)
