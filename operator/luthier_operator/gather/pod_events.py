"""Asking the API server for the Events that say why a pod is not made; `plan` says which, and when."""

from collections.abc import Mapping
from datetime import datetime

from luthier_operator.kube import KubeClient
from luthier_operator.model.resources import FineTuneJobResource
from luthier_operator.model.views import Raw
from luthier_operator.plan.finetunejob.events_to_ask import queries
from luthier_operator.plan.finetunejob.situation import ObservedRuns


async def read_pod_events(
    kube: KubeClient, resource: FineTuneJobResource, observed: ObservedRuns, now: datetime
) -> Mapping[str, str]:
    """Return {uid of a Job: why it gets no pod that starts}, for the resource's Jobs that have waited for a while."""
    found = {}
    for query in queries(resource.spec, observed.jobs.own, now):
        if query.due:
            selector = f"involvedObject.uid={query.about_uid},reason={query.reason}"
            events = await kube.list_by_field("v1", "Event", resource.meta.namespace, selector)
            if events:
                found[query.job_uid] = str(max(events, key=last_seen).get("message", ""))
    return found


def last_seen(event: Raw) -> str:
    """Return when an Event was last seen, as a text that sorts."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])
