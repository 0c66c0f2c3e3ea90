"""Counter-based random integers: each value is a hash of its index, without generator state.

They are the same on every device and independent of batch size, order, workers and processes.
"""

import torch
from torch import Tensor

GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def random_integers(words: tuple[int, ...], count: int, device: torch.device | str = "cpu") -> Tensor:
    """Return (count,) int64 hashes of the indices 0, 1, ... under the key `words` (seed, epoch, ...)."""
    key = torch.zeros((), dtype=torch.int64, device=device)
    for word in words:
        key = splitmix64(key ^ _signed(word))
    return splitmix64(key + torch.arange(count, device=device) * _signed(GOLDEN))


def below(limit: int, integers: Tensor, bit: int) -> Tensor:
    """Return uniform integers in [0, limit) from the 20 bits above `bit`; the error is < limit / 2**20."""
    return ((integers >> bit) & 0xFFFFF) * limit >> 20


def splitmix64(integers: Tensor) -> Tensor:
    """Apply the output function of SplitMix64 (Steele, Lea and Flood, 2014) to int64, whose products wrap."""
    mixed = integers + _signed(GOLDEN)
    mixed = (mixed ^ _shift_right(mixed, 30)) * _signed(FIRST)
    mixed = (mixed ^ _shift_right(mixed, 27)) * _signed(SECOND)
    return mixed ^ _shift_right(mixed, 31)


def _shift_right(integers: Tensor, bits: int) -> Tensor:
    """Shift logically: torch's own shift of int64 keeps the sign."""
    return (integers >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word
