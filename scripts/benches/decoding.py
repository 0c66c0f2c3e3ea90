"""Training crops a second and core from full-size JPEG files, beside torchvision's and timm's pipelines."""

from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from cuttlefish.config.validate import load_config
from cuttlefish.tasks.folder.loader import Draws, pixels_of
from cuttlefish.tasks.registry import data_set
from scripts.benches.turns import Rows, in_turns

SIZE, BATCH = 224, 32
SIZES = 6 * [(500, 375)] + 6 * [(375, 500)] + 3 * [(400, 300)] + [(1600, 1200)]
"""Widths and heights of the images: those usual in ImageNet, and one of its large ones."""
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def bench_imagenet(device: str, rounds: int, small: bool) -> Rows:
    """Compare what a decoding process does: random crops to 224 × 224, flipped, in batches.

    torchvision's normalise there; timm and we send bytes to the device, which normalises them.
    """
    images = 2 * BATCH if small else 8 * BATCH
    threads = torch.get_num_threads()
    with TemporaryDirectory() as folder:
        _write_images(Path(folder), images)
        epochs = {"torchvision": _torchvision(folder), "timm": _timm(folder), "ours": _ours(folder)}
        torch.set_num_threads(1)
        try:
            seconds = in_turns(epochs, rounds + 1, "cpu")
        finally:
            torch.set_num_threads(threads)
    seconds = {name: taken[1:] for name, taken in seconds.items()}  # the first round warms up
    return [_row(name, taken, seconds["torchvision"], images) for name, taken in seconds.items()]


def _row(name: str, taken: list[float], baseline: list[float], images: int) -> dict[str, Any]:
    ratios = [slow / fast for slow, fast in zip(baseline, taken, strict=True)]
    return {
        "pipeline": name, "images": images, "images_per_s_and_core": images / median(taken),
        "of_torchvision": median(ratios), "slowest_ratio": min(ratios), "fastest_ratio": max(ratios),
        "rounds_s": taken,
    }  # fmt: skip


def _write_images(root: Path, count: int) -> None:
    """Write images with a photograph's spectrum, about 80 KB each, to two classes of two splits."""
    for number in range(count):
        content = _photo(number % 16, *SIZES[number % len(SIZES)])
        folder = root / "train" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        content.save(folder / f"{number}.JPEG", quality=90)
    for label in range(2):
        (root / "val" / f"class{label}").mkdir(parents=True)
        _photo(label, 64, 64).save(root / "val" / f"class{label}" / "0.JPEG")


def _photo(seed: int, width: int, height: int) -> Image.Image:
    random = np.random.RandomState(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1.0
    shape = (3, *frequency.shape)
    waves = (random.standard_normal(shape) + 1j * random.standard_normal(shape)) / frequency**1.2
    planes = np.fft.irfft2(waves, s=(height, width))
    planes = (planes - planes.mean((1, 2), keepdims=True)) / planes.std((1, 2), keepdims=True)
    mixed = 0.8 * planes[:1] + 0.2 * planes  # colours vary less than brightness
    return Image.fromarray((128 + 45 * mixed).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def _torchvision(folder: str) -> Callable[[], None]:
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    images = ImageFolder(f"{folder}/train", transforms.Compose([*steps, transforms.Normalize(MEAN, STD)]))
    loader = torch.utils.data.DataLoader(images, BATCH, shuffle=True)
    return lambda: _consume(images for images, _ in loader)


def _timm(folder: str) -> Callable[[], None]:
    from timm.data import create_dataset, create_loader

    images = create_dataset("", f"{folder}/train", is_training=True)
    loader = create_loader(
        images, SIZE, BATCH, is_training=True, color_jitter=0.0, num_workers=0, device=torch.device("cpu")
    )
    return lambda: _consume(images for images, _ in loader.loader)  # without its normalisation


def _ours(folder: str) -> Callable[[], None]:
    own = {"root": folder, "image_size": SIZE, "flip": True, "mean": MEAN, "std": STD}
    data = {"name": "folder", "kind": "folder", "crop_scale": [0.08, 1.0], "workers": 0, **own}
    config = load_config({"data": data})
    task = data_set(config.data).task(config, torch.device("cpu"), torch.float32)
    numbers = np.arange(task.train_size)
    shares = [slice(start, start + BATCH) for start in range(0, len(numbers), BATCH)]
    return lambda: _consume(pixels_of(task.cropped, Draws(numbers, numbers, shares), 0, task.device))


def _consume(batches: Iterator[torch.Tensor]) -> None:
    for images in batches:
        assert sorted(images.shape[1:]) == [3, SIZE, SIZE]
