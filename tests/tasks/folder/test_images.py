"""Decoding, cropping and augmenting one image."""

import random
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.folder.images import Augmented, Evaluated, decoded, rand_augment
from tests.helpers.photos import photo


def saved(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("mode", "ending"), [("L", "jpg"), ("CMYK", "jpg"), ("P", "png"), ("RGBA", "png"), ("RGB", "webp")]
)
def test_every_kind_of_file_is_read_as_rgb(tmp_path, mode, ending):
    path = saved(tmp_path / f"a.{ending}", photo(1).convert(mode))
    expected = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(decoded(path).numpy(), expected)


def test_sixteen_bits_a_channel_become_eight(tmp_path):
    levels = np.linspace(0, 65535, 12 * 8).round().astype(np.uint16).reshape(12, 8)
    path = saved(tmp_path / "a.png", Image.fromarray(levels))
    pixels = decoded(path)
    assert pixels.dtype == torch.uint8 and pixels.shape == (3, 12, 8)
    assert np.abs(pixels[0].numpy() - levels / 257).max() <= 1


def test_a_damaged_file_is_named_in_one_sentence(tmp_path):
    whole = BytesIO()
    photo(1).save(whole, "JPEG")
    (tmp_path / "half.jpg").write_bytes(whole.getvalue()[:-20])
    with pytest.raises(CuttlefishError, match="half.jpg is no image that can be read .*incomplete") as caught:
        decoded(tmp_path / "half.jpg")
    assert "\n" not in str(caught.value)
    with pytest.raises(CuttlefishError, match="none.jpg is no image"):
        decoded(tmp_path / "none.jpg")


@pytest.mark.parametrize("size", [(800, 600), (333, 500)])
def test_decoding_at_a_lower_resolution_shows_the_same(tmp_path, size):
    """Within the difference that two ways to reduce an image make."""
    path = saved(tmp_path / "big.jpg", photo(3, size), quality=95)
    box = (40, 60, 260, 250)
    at_once = decoded(path, lambda height, width: box, 100)
    assert at_once.shape == (3, 130, 125), "half the resolution of the part"
    whole = Image.fromarray(decoded(path, lambda height, width: box).permute(1, 2, 0).numpy())
    expected = np.asarray(whole.resize((125, 130), Image.Resampling.BOX), int).transpose(2, 0, 1)
    assert np.abs(at_once.numpy() - expected).mean() < 1.5


def test_evaluation_is_torchvision_s_resize_and_centre_crop(tmp_path):
    from torchvision.transforms import v2

    path = saved(tmp_path / "a.jpg", photo(2, (50, 37)))
    expected = v2.Compose([v2.Resize(32), v2.CenterCrop(28)])(decoded(path)).permute(1, 2, 0)
    assert torch.equal(Evaluated(28, 32, "bilinear")(path, 0), expected)


def test_a_sample_is_a_function_of_its_integer_alone(tmp_path):
    path = saved(tmp_path / "a.jpg", photo(2, (60, 50)))
    policy = rand_augment("rand-m9-mstd0.5-inc1", 32, [0.5, 0.5, 0.5], "bicubic")
    show = Augmented(32, (0.08, 1.0), True, "bicubic", policy)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first = [show(path, word) for word in range(12)]
    assert before[:2] == (random.getstate(), np.random.get_state()[1].tolist())
    assert torch.equal(before[2], torch.get_rng_state())
    random.seed(2), np.random.seed(2)
    assert all(torch.equal(show(path, word), pixels) for word, pixels in enumerate(first))
    assert len({pixels.numpy().tobytes() for pixels in first}) == 12


def test_crops_have_the_area_and_aspect_that_are_asked_for():
    show = Augmented(8, (0.25, 0.5), False, "bilinear")
    random.seed(0)
    boxes = np.array([show._box(90, 120) for _ in range(300)])
    top, left, high, wide = boxes.T
    assert ((top + high <= 90) & (left + wide <= 120) & (top >= 0) & (left >= 0)).all()
    area, aspect = high * wide / (90 * 120), wide / high
    assert 0.24 < area.min() < 0.27 and 0.48 < area.max() < 0.51
    assert 0.73 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.36


def test_without_a_scale_the_whole_image_is_shown(tmp_path):
    path = saved(tmp_path / "a.png", photo(2, (16, 16)))
    pixels = Augmented(16, None, False, "bilinear")(path, 5)
    assert torch.equal(pixels, decoded(path).permute(1, 2, 0))


def test_an_unknown_policy_is_refused():
    with pytest.raises(CuttlefishError, match="data.rand_augment=rond-m9 is no policy of timm's"):
        rand_augment("rond-m9", 32, [0.5, 0.5, 0.5], "bilinear")
