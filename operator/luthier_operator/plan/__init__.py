"""Decisions: from what is, to what is to be done. Pure functions: no clock, no network, no randomness.

`finetunejob.policies.plan_finetunejob`, `modeldeployment.policies.plan_modeldeployment` and
`batchprediction.policies.plan_batchprediction` are the ways in: each turns a resource, what was observed of it and the
time into a `Plan`. They know nothing of each other; all read pods by `pods` (why one does not start, why one ended) and
say how it stands with a `verdict`. `target` is the version that a `model` of the spec stands for.
"""
