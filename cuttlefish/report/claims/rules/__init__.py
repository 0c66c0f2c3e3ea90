"""Rules that compute our value of a claim from records and benches; claims.yaml names one per claim.

A rule takes a Case and its parameters and returns Measures: samples, the accepted range of their mean, and
their sources. `report/claims/judge.py` judges them.
"""
