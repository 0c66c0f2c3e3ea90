"""Tokens on the training device, in batches of similar length padded to one of a few lengths.

A batch is one gather from the flat tokens: no loop over samples, no copy from the host, no synchronisation
but one an epoch, for the lengths of its batches.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch
from torch import Tensor

from cuttlefish.tasks.base import Batch
from cuttlefish.tasks.randomness import random_integers
from cuttlefish.tasks.text.lengths import padded_lengths
from cuttlefish.tasks.text.tokens import Encoded

TRAINING, SAMPLES, EXAMPLE = range(3)
ORDER, BATCHES = range(2)


@dataclass(frozen=True)
class _Plan:
    """An order of the set, (N,) indices, cut into batches: each one's (start, end, padded length)."""

    order: Tensor
    cuts: list[tuple[int, int, int]]


class ResidentSentences:
    """Tokens and targets on a device. Memory: about 5 bytes a token and 32 a sentence.

    Args:
        encoded: The tokens of N sentences or pairs.
        targets: (N,) int64 classes or float32 values.
        pad_id: The token that fills a batch's rows up.
        token_types: Whether the model takes `token_type_ids`.
        padded: Lengths to pad to, ascending; by default those that fit this set best.
    """

    def __init__(
        self,
        encoded: Encoded,
        targets: np.ndarray | Tensor,
        *,
        pad_id: int,
        token_types: bool,
        padded: list[int] | None = None,
        device: torch.device | str = "cpu",
    ):
        self.targets = torch.as_tensor(targets).to(device)
        self.device, self.pad_id, self.token_types = self.targets.device, pad_id, token_types
        self.padded = padded or padded_lengths(encoded.lengths)
        """The lengths of batches, ascending."""
        self._ids, self._types, self._starts, self._lengths, self._group = (
            torch.from_numpy(array).to(device)
            for array in (
                encoded.ids,
                encoded.types,
                encoded.starts[:-1],
                encoded.lengths,
                np.searchsorted(self.padded, encoded.lengths),
            )
        )

    def __len__(self) -> int:
        return len(self.targets)

    def train_batches(
        self, batch_size: int, *, seed: int, epoch: int, first: int = 0, process: int = 0, processes: int = 1
    ) -> Iterator[Batch]:
        """Yield this process's contiguous share of each global batch of one epoch, from step `first` on.

        Which sentences a batch has, and the order of batches, are functions of (seed, epoch, index) only. The
        last batch may be smaller, and a share may be empty: all processes take the same number of steps.
        """
        yield from self._shares(self._shuffled(batch_size, TRAINING, seed, epoch), first, process, processes)

    def eval_batches(self, batch_size: int, *, process: int = 0, processes: int = 1) -> Iterator[Batch]:
        """Yield the shares of the set in order of length."""
        order = self._lengths.argsort(stable=True)
        ends = [min(start + batch_size, len(self)) - 1 for start in range(0, len(self), batch_size)]
        plan = _Plan(order, self._cuts(self._group[order[ends]], batch_size))
        yield from self._shares(plan, 0, process, processes)

    def samples(self, batch_size: int, seed: int, order: int = 0) -> Iterator[Batch]:
        """Yield batches without end, the same on all processes and for any training order."""
        for epoch in count(order):
            yield from self._shares(self._shuffled(batch_size, SAMPLES, seed, epoch), 0, 0, 1)

    def example(self, batch_size: int) -> Batch:
        """Return always the same `batch_size` (or all) sentences, padded to the longest one's length."""
        chosen = random_integers((EXAMPLE, ORDER), len(self), self.device).argsort(stable=True)[:batch_size]
        return self.gather(chosen, self.padded[int(self._group[chosen].max())])

    def shapes(self, batch_size: int) -> list[Batch]:
        """Return a batch of `batch_size` of every length, of sentences that fit into it, repeated."""
        batches = []
        for length in self.padded:
            fitting = torch.nonzero(self._lengths <= length)[:, 0]
            times = -(-batch_size // max(len(fitting), 1))
            batches.append(self.gather(fitting.repeat(times)[:batch_size], length))
        return batches

    def gather(self, index: Tensor, length: int, global_size: int | None = None) -> Batch:
        """Return the sentences `index` (B,), each input (B, length) int64."""
        place = torch.arange(length, device=self.device)
        inside = place < self._lengths[index, None]
        at = torch.where(inside, self._starts[index, None] + place, 0)
        inputs = {
            "input_ids": torch.where(inside, self._ids[at].to(torch.int64), self.pad_id),
            "attention_mask": inside.to(torch.int64),
        }
        if self.token_types:
            inputs["token_type_ids"] = torch.where(inside, self._types[at].to(torch.int64), 0)
        return Batch(inputs, self.targets[index], len(index) if global_size is None else global_size)

    def _shuffled(self, batch_size: int, stream: int, seed: int, epoch: int) -> _Plan:
        """Return a random order in which each batch but the last is of one length, or of neighbouring ones.

        The last batch, where the set is no multiple of the batch size, is a random rest: were it always the
        longest sentences, these would weigh more, as its loss is divided by its own size.
        """
        order = random_integers((stream, ORDER, seed, epoch), len(self), self.device).argsort(stable=True)
        whole, rest = divmod(len(self), batch_size)
        grouped, last = order[: whole * batch_size], order[whole * batch_size :]
        grouped = grouped[self._group[grouped].argsort(stable=True)].view(whole, batch_size)
        turns = random_integers((stream, BATCHES, seed, epoch), whole, self.device).argsort(stable=True)
        grouped = grouped[turns]
        longest = torch.cat([self._group[grouped[:, -1]], self._group[last].sort().values[-1:]])
        return _Plan(torch.cat([grouped.flatten(), last]), self._cuts(longest, batch_size))

    def _cuts(self, groups: Tensor, batch_size: int) -> list[tuple[int, int, int]]:
        return [
            (step * batch_size, min((step + 1) * batch_size, len(self)), self.padded[group])
            for step, group in enumerate(groups.tolist())
        ]

    def _shares(self, plan: _Plan, first: int, process: int, processes: int) -> Iterator[Batch]:
        for start, end, length in plan.cuts[first:]:
            size = end - start
            share = slice(start + size * process // processes, start + size * (process + 1) // processes)
            yield replace(self.gather(plan.order[share], length, size), first=share.start - start)
