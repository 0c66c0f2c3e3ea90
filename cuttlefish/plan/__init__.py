"""Which runs the tables and figures are made of, under which run keys, in which state, at what cost.

Composing needs Hydra and torch; what it gives is kept (`cache.py`), so that collating records needs neither.
"""
