"""Rules: how our value of a claim comes out of records and benches. claims.yaml names one for each claim.

A rule takes a Case and its parameters and returns Measures: samples, where their mean must lie, and what they
come from. It never judges; `report/claims/judge.py` does.
"""
