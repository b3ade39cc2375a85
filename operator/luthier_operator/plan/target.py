"""Which version a resource's `model` stands for, or the sentence that says what it waits for."""

from dataclasses import dataclass

from luthier_api.finetunejob import VersionStatus
from luthier_api.modeldeployment import FineTuneJobRef, ServedModel
from luthier_api.reasons import Reason
from luthier_api.storage import StorageAccess
from luthier_operator.manifests.access import Grant
from luthier_operator.model.views import FineTuneJobView


@dataclass(frozen=True)
class Target:
    """A version, where it lies, and how it is reached."""

    version: str
    uri: str
    digest: str
    grant: Grant


@dataclass(frozen=True)
class NoTarget:
    """There is nothing to serve yet, or nothing that may be."""

    reason: Reason
    message: str
    final: bool = False
    """Whether only an edit can help."""


def target_of(model: ServedModel, job: FineTuneJobView | None) -> Target | NoTarget:
    """Return the version that is asked for.

    Without a version, a FineTuneJob's first promotable one is taken: its versions begin with the one that its present
    spec chose, so a reverted FineTuneJob is followed back.
    """
    if model.fine_tune_job_ref is None:
        assert model.uri and model.digest
        version = model.uri.rstrip("/").rpartition("/")[2]
        return Target(version, model.uri.rstrip("/"), model.digest, _grant(model))
    if job is None:
        name = model.fine_tune_job_ref.name
        return NoTarget(Reason.WAITING_FOR_MODEL, f"There is no FineTuneJob {name} in this namespace yet.")
    grant = Grant("output", job.storage) if model.is_unset() else _grant(model)
    return _version_of(model.fine_tune_job_ref, job, grant)


def _version_of(ref: FineTuneJobRef, job: FineTuneJobView, grant: Grant) -> Target | NoTarget:
    versions = [version for version in job.status.versions if not version.removing]
    if ref.version:
        found = next((version for version in versions if version.version == ref.version), None)
        if found is None:
            known = ", ".join(version.version for version in versions[:5]) or "none yet"
            text = f"FineTuneJob {ref.name} has no version {ref.version}; it has: {known}."
            return NoTarget(Reason.MODEL_NOT_FOUND, text, final=True)
        return _target(found, grant)
    promotable = next((version for version in versions if version.promotable), None)
    if promotable is None:
        why = f"it is {job.status.phase.lower()}" if not versions else "no version of it passed its gates"
        return NoTarget(Reason.WAITING_FOR_MODEL, f"Waiting for FineTuneJob {ref.name} to publish a version: {why}.")
    return _target(promotable, grant)


def _target(version: VersionStatus, grant: Grant) -> Target:
    return Target(version.version, version.uri, version.digest, grant)


def _grant(model: ServedModel) -> Grant:
    """Return the way to storage that the spec itself names."""
    return Grant("model", StorageAccess(**{name: getattr(model, name) for name in StorageAccess.model_fields}))
