"""Decisions: from what is, to what is to be done. Pure functions: no clock, no network, no randomness.

`finetunejob.policies.plan_finetunejob` and `modeldeployment.policies.plan_modeldeployment` are the two ways in: each
turns a resource, what was observed of it and the time into a `Plan`. They know nothing of each other; both read pods by
`pods` (why one does not start, why one ended) and say how it stands with a `verdict`.
"""
