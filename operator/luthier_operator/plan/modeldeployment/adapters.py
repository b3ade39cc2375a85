"""How it stands with the adapters that a spec names, from what the server replicas say of them. Pure."""

from collections.abc import Sequence

from luthier_api.modeldeployment import Adapter, AdapterStatus, ModelDeploymentSpec
from luthier_operator.manifests.rayservice import version_of
from luthier_operator.model.sanitize import printable
from luthier_operator.model.views import PodReport


def adapters_of(
    spec: ModelDeploymentSpec, reports: Sequence[PodReport], before: Sequence[AdapterStatus] | None
) -> list[AdapterStatus] | None:
    """Return a row for each adapter of the spec; None if it names none.

    While no replica answers, what was last known of an adapter stays.
    """
    if not spec.adapters:
        return None
    known = {(each.name, each.version): each for each in before or ()}
    return [_row(adapter, reports, known.get((adapter.name, version_of(adapter.uri)))) for adapter in spec.adapters]


def _row(adapter: Adapter, reports: Sequence[PodReport], before: AdapterStatus | None) -> AdapterStatus:
    row = AdapterStatus(name=adapter.name, version=version_of(adapter.uri), state="Loading")
    answers = [each.report for each in reports if each.report and each.report.ready]
    if not answers:
        return before or row
    states = [
        next((each for each in answer.adapters if (each.name, each.digest) == (adapter.name, adapter.digest)), None)
        for answer in answers
    ]
    failed = next((state for state in states if state and state.state == "Failed"), None)
    if failed:
        return row.model_copy(update={"state": "Failed", "message": printable(failed.message)})
    if all(state and state.state == "Ready" for state in states):
        return row.model_copy(update={"state": "Ready"})
    return row
