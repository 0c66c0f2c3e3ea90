"""Data sets with images on the training device. Only `resident`, `task` and `randomness` import torch."""
