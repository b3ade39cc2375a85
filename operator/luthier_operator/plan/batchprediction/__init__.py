"""What to do for a BatchPrediction: `policies` is the way in, its lifecycle as an ordered list of decisions.

`record` reads what the run's Job has come to, `situation` is what a policy looks at and returns, `verdicts` has the
words, and `status` writes them.
"""
