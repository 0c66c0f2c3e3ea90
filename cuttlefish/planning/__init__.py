"""The runs behind tables and figures: their run keys, states and costs.

Composing needs Hydra and torch; its results are cached (`cache.py`), so collating records needs neither.
"""
