"""Asking the API server for the Events that say why a pod is not made; `plan` says which, and when."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from luthier_operator.kube import KubeClient
from luthier_operator.model.views import JobView, Raw
from luthier_operator.plan.pods.events_to_ask import FAILED_MOUNT, queries


async def read_pod_events(
    kube: KubeClient, namespace: str, jobs: Sequence[JobView], now: datetime, *, mounts: bool
) -> Mapping[str, str]:
    """Return {uid of a Job: why it gets no pod that starts}, for those of a resource's Jobs that have waited a while.

    `mounts` says whether their pods mount what may not be there.
    """
    found = {}
    for query in queries(jobs, now, mounts=mounts):
        if query.due:
            if query.reason == FAILED_MOUNT:
                text = await read_failed_mount(kube, namespace, query.about_uid)
            else:
                selector = f"involvedObject.uid={query.about_uid},reason={query.reason}"
                text = newest(await kube.list_by_field("v1", "Event", namespace, selector))
            if text:
                found[query.job_uid] = text
    return found


async def read_failed_mount(kube: KubeClient, namespace: str, pod_uid: str) -> str:
    """Return why a pod cannot mount a volume, if that is the last that happened to it: it may have gone on since."""
    events = await kube.list_by_field("v1", "Event", namespace, f"involvedObject.uid={pod_uid}")
    latest = max(map(last_seen, events), default="")
    failed = [event for event in events if event.get("reason") == FAILED_MOUNT]
    if all(last_seen(event) < latest for event in failed):
        return ""
    # Others among them say only that it took too long.
    return newest([event for event in failed if "MountVolume" in str(event.get("message"))] or failed)


def newest(events: Sequence[Raw]) -> str:
    """Return the message of the newest of these Events; an empty text if there is none."""
    return str(max(events, key=last_seen).get("message", "")) if events else ""


def last_seen(event: Raw) -> str:
    """Return when an Event was last seen, as a text that sorts."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])
