"""Sentences and pairs of them: GLUE, and files of a user's own. Only `sentences` and `task` import torch."""
