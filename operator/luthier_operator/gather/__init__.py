"""Gathering what there is, the only reading that a reconcile does: one module a resource, and what they ask.

`finetunejob` and `modeldeployment` put together what `plan` is given, from the store and, where that cannot know, from
the API server: `kueue` for the queues, `pod_events` for pods that are not made, `versions_in_use` for versions that
must not be removed. `progress_poller` asks training pods apart from reconciles, by `pod_client`.
"""
