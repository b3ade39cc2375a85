"""What pods and their Jobs say, read for all kinds of resource; nothing here knows of a run or a rollout.

`diagnosis` says why a pod does not start, `failures` why one ended and whether to try again, `kueue` why a queued Job
waits, `events_to_ask` which Events to ask for, `image_policy` whether an image may run.
"""
