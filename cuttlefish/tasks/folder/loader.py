"""Decode batches in worker processes, and bring them to the device while it computes."""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.folder.images import Augmented, Evaluated, Source

Show = Augmented | Evaluated
AHEAD = 3
"""Batches that each worker prepares in advance."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class Draws:
    """The samples of an epoch's batches, made into lists one batch at a time.

    Attributes:
        order: (N,) numbers of the images.
        words: (N,) integers that decide the random choices of the samples, by the images' places.
        shares: The part of each batch.
    """

    order: np.ndarray
    words: np.ndarray
    shares: Sequence[slice]

    def __len__(self) -> int:
        return len(self.shares)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for share in self.shares:
            yield list(zip(self.order[share].tolist(), self.words[share].tolist(), strict=True))


class Files(Dataset):
    """Files by number; a sample that cannot be read is returned as its error.

    Args:
        source: Returns where a file is.
    """

    def __init__(self, source: Callable[[Any], Source], files: np.ndarray, show: Show):
        self.source, self.files, self.show = source, files, show

    def __getitem__(self, draw: tuple[int, int]) -> Tensor | str:
        index, word = draw
        try:
            return self.show(self.source(self.files[index]), word)
        except CuttlefishError as error:
            return str(error)


def pixels_of(files: Files, draws: Draws, workers: int, device: torch.device) -> Iterator[Tensor]:
    """Yield (B, S, S, 3) uint8 on the device for each batch, in order.

    Raises:
        CuttlefishError: An image cannot be read.
    """
    on_gpu = device.type == "cuda"
    loader = DataLoader(
        files,
        batch_sampler=draws,
        num_workers=min(workers, len(draws)),
        prefetch_factor=AHEAD if min(workers, len(draws)) else None,
        collate_fn=partial(_collate, files.show.size),
        pin_memory=on_gpu,
        generator=torch.Generator(),  # or it would draw a base seed from the run's own generator
    )
    loaded = map(_checked, _started(loader))
    yield from _ahead(loaded, device) if on_gpu else loaded


def _started(loader: DataLoader) -> Iterator[Tensor | str]:
    """Start the workers, deaf to requests to stop: these reach all processes of a terminal or a job, and the
    run itself answers them. A worker ends with its run."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # which a worker inherits
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _collate(size: int, samples: list[Tensor | str]) -> Tensor | str:
    """Return a batch, possibly empty, or the first error."""
    if not samples:
        return torch.empty(0, size, size, 3, dtype=torch.uint8)
    return next((sample for sample in samples if isinstance(sample, str)), None) or default_collate(samples)


def _checked(pixels: Tensor | str) -> Tensor:
    if isinstance(pixels, str):
        raise CuttlefishError(f"{pixels}; replace it or remove it, then run the same command again")
    return pixels


def _ahead(loaded: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Copy the next batch on a stream of its own while the device computes on this one."""
    stream, waiting = torch.cuda.Stream(device), None
    for pixels in loaded:
        with torch.cuda.stream(stream):
            coming = pixels.to(device, non_blocking=True), stream.record_event()
        if waiting is not None:
            yield _arrived(*waiting)
        waiting = coming
    if waiting is not None:
        yield _arrived(*waiting)


def _arrived(pixels: Tensor, copied: torch.cuda.Event) -> Tensor:
    current = torch.cuda.current_stream(pixels.device)
    current.wait_event(copied)
    pixels.record_stream(current)  # its memory is not reused before the current stream is done with it
    return pixels
