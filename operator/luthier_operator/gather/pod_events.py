"""Asking the API server for the Events that say why a pod is not made; `plan` says which, and when."""

from collections.abc import Mapping
from datetime import datetime

from luthier_operator.kube import Cluster
from luthier_operator.model.resources import FineTuneJobResource
from luthier_operator.model.views import Raw
from luthier_operator.plan.finetunejob import events_to_ask as refusals
from luthier_operator.plan.finetunejob.situation import ObservedRuns


async def refusals_of(
    cluster: Cluster, resource: FineTuneJobResource, observed: ObservedRuns, now: datetime
) -> Mapping[str, str]:
    """Return {uid of a Job: why it gets no pod that starts}, for the resource's Jobs that have waited for a while."""
    own = [job for job in observed.jobs if job.owner_uid == resource.meta.uid]
    told = {}
    for question in refusals.questions(resource.spec, own, observed.pods, now):
        if question.due:
            selector = f"involvedObject.uid={question.about_uid},reason={question.reason}"
            events = await cluster.list_by_field("v1", "Event", resource.meta.namespace, selector)
            if events:
                told[question.job_uid] = str(max(events, key=_last_seen).get("message", ""))
    return told


def _last_seen(event: Raw) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])
