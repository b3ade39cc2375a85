"""Kubernetes manifests, built from resources and defaults. Pure: values in, dicts out, nothing decided.

`jobs` builds the two Jobs of a run and `removal` those that take versions out of storage; `rayservice` the server, and
`batch_job` the workers of a BatchPrediction. What pods need is in `pods` (security, placement, resources), `access`
(the way to storage), `claims` (volumes to read from), `model_cache` (the volume with base models) and `rendezvous` (how
the pods of one run on several nodes find each other).
"""
