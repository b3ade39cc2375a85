"""Gathering what there is, the only reading that a reconcile does: one module a resource, and what they ask.

`finetunejob`, `modeldeployment` and `batchprediction` put together what `plan` is given, from the store and, where that
cannot know, from the API server: `kueue` for the queues, `pod_events` for pods that are not made, `versions_in_use` for
versions that must not be removed, `followed` for the FineTuneJob that a resource names. `progress_poller` asks training
pods, and workers of batch predictions, apart from reconciles, by `pod_client`.
"""
