"""Data sets whose images live on the training device. Only `resident` and `task` import torch."""
