"""versionHistoryLimit: which versions go, and how, without a spec ever being answered by one that is gone.

    over the limit -> marked in the status (`removing`): answers no spec any more
                   -> the run's old Jobs go, for their result names the version -> a Job removes it from storage
                   -> gone: out of the status    kept by an alias, or failed: the status says why (`kept`)

Kept is what answered a spec last, up to the limit; what a ModelDeployment serves; and the last version that passed its
gates. Removing waits until the resource is at rest, and gives way to a run that begins: prepare must not find a version
that goes in the same moment. What is kept, or failed, is tried again when the next version is over the limit.
Pure, like all of `plan`.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from luthier_api.documents import Removed
from luthier_api.finetunejob import FineTuneJobSpec, LastFailure, VersionStatus
from luthier_api.reasons import Reason
from luthier_operator.manifests import removal
from luthier_operator.model.actions import Apply, Delete, EventNote, Manifest
from luthier_operator.model.views import JobView
from luthier_operator.plan.finetunejob import removals
from luthier_operator.plan.finetunejob.situation import Decision, Situation, deletions
from luthier_operator.plan.finetunejob.status import Verdict

Versions = tuple[VersionStatus, ...]
_KEPT_CHARACTERS = 500
_LOOK_AGAIN_S = 600.0
_WAITING = Verdict(
    "Waiting", Reason.WAITING_FOR_RUN, "Waiting for the removal of an old version to stop.", going_on=True
)


@dataclass(frozen=True)
class Upkeep:
    """What is done about old versions beside what a policy decided."""

    versions: Versions
    deletes: tuple[Delete, ...] = ()
    applies: tuple[Apply, ...] = ()
    events: tuple[EventNote, ...] = ()
    unsure: bool = False
    """Whether it rests on nothing serving a version, which the API server itself is to be asked."""
    requeue_after_s: float | None = None


def in_the_way(s: Situation) -> Decision | None:
    """What has to go before a run begins: a removal under way, and old Jobs whose result names a version that goes.

    Both are deleted and waited for. A removal that is cut off is made again when the resource is at rest.
    """
    going = {version.spec_hash for version in s.memory.versions if version.removing}
    old = [job for job in s.jobs if job.run == s.wanted.run and s.wanted.spec_hash in going and not s.run]
    pruning = [job for job in s.removals if job.live]
    if not old and not pruning:
        return None
    return Decision(_WAITING, s.memory, deletes=deletions([*old, *pruning]))


def upkeep(s: Situation, decision: Decision) -> Upkeep:
    """Return what becomes of the versions, given what a policy decided."""
    done = _harvested(s, decision.memory.versions)
    rests = not decision.applies and not decision.verdict.going_on and not any(job.live for job in s.jobs)
    if not rests:
        return done
    wanted = _marked(done.versions, s.spec, s.observed.in_use)
    if surplus(wanted, s.spec, ()) != surplus(wanted, s.spec, s.observed.in_use):
        done = replace(done, requeue_after_s=_LOOK_AGAIN_S)  # not everything that ends a service wakes this resource
    if any(version.removing and version not in done.versions for version in wanted):
        return replace(done, versions=wanted, unsure=True)  # the Job comes after this is written
    return _carried_on(s, replace(done, versions=wanted))


def surplus(versions: Versions, spec: FineTuneJobSpec, in_use: Collection[str]) -> set[str]:
    """Return the URIs of the versions that are over the limit and that nothing keeps."""
    if spec.version_history_limit is None:
        return set()
    known = list(dict.fromkeys(version.uri for version in versions))
    kept = set(known[: spec.version_history_limit])
    kept |= {version.uri for version in versions if version.version in in_use}
    kept |= {next((version.uri for version in versions if version.promotable and not version.removing), "")}
    return set(known) - kept


def _marked(versions: Versions, spec: FineTuneJobSpec, in_use: Collection[str]) -> Versions:
    """Mark what is over the limit, once something is that was not before; forget why something was kept that is not."""
    over = surplus(versions, spec, in_use)
    if any(version.uri in over and not version.removing and not version.kept for version in versions):
        return tuple(
            version.model_copy(update={"removing": True, "kept": None}) if version.uri in over else version
            for version in versions
        )
    return tuple(
        version.model_copy(update={"kept": None}) if version.kept and version.uri not in over else version
        for version in versions
    )


def _going(s: Situation, versions: Iterable[VersionStatus]) -> Versions:
    """Return the versions that a Job is to remove now: marked, not given up, and not served since."""
    return tuple(
        version
        for version in versions
        if version.removing and not version.kept and version.version not in s.observed.in_use
    )


def _manifest(s: Situation, going: Versions) -> Manifest:
    return removal.of_versions(s.resource.meta, s.spec, going, s.observed.in_use, s.defaults)


def _carried_on(s: Situation, done: Upkeep) -> Upkeep:
    """Return the next step of a removal: old Jobs first, then the Job that removes."""
    going = _going(s, done.versions)
    name = _manifest(s, going)["metadata"]["name"] if going else ""
    others = [job for job in s.removals if job.live and job.name != name]
    specs = {version.spec_hash for version in going}
    old = [job for job in s.jobs if job.spec_hash in specs]
    if others or old:
        return replace(done, deletes=done.deletes + deletions([*others, *old]))
    if not going or any(job.name == name for job in s.observed.jobs):
        return done
    return replace(done, applies=(Apply(_manifest(s, going), once=True),), unsure=True)


def _harvested(s: Situation, versions: Versions) -> Upkeep:
    """Read what the Jobs that removed came to: out of the status, or why not."""
    going = _going(s, versions)
    name = _manifest(s, going)["metadata"]["name"] if going else ""
    result = Upkeep(versions)
    for job in s.removals:
        if job.live or job.deleting:
            continue
        came_to = removals.outcome(job, s.observed.pods)
        if isinstance(came_to, Removed):
            result = _without(result, came_to.removed, s.jobs, s.spec)
        # What else it says holds for what it was asked; what is asked now may be something else.
        if job.name != name:
            continue
        if came_to is None:
            result = replace(result, deletes=deletions([job]), unsure=True)
        elif isinstance(came_to, Removed):
            result = _keeping(result, going, came_to.kept)
        else:
            result = _not_removed(result, going, came_to)
    return result


def _without(before: Upkeep, removed: Collection[str], jobs: Sequence[JobView], spec: FineTuneJobSpec) -> Upkeep:
    """Forget versions that are gone, unless a Job is left that would bring them up again."""
    told = {job.spec_hash for job in jobs}
    gone = [
        each for each in before.versions if each.removing and each.version in removed and each.spec_hash not in told
    ]
    if not gone:
        return before
    names = ", ".join(dict.fromkeys(version.version for version in gone))
    text = f"Removed from storage: {names}; versionHistoryLimit is {spec.version_history_limit}."
    rest = tuple(version for version in before.versions if version not in gone)
    return replace(before, versions=rest, events=(*before.events, EventNote(Reason.PRUNED, text)))


def _keeping(before: Upkeep, going: Versions, kept: dict[str, str]) -> Upkeep:
    """Let versions that are still there answer again, and say why they are kept."""
    asked = {version.uri for version in going if version.version in kept}
    versions = tuple(
        version.model_copy(update={"removing": None, "kept": kept[version.version]})
        if version.uri in asked
        else version
        for version in before.versions
    )
    return replace(before, versions=versions)


def _not_removed(before: Upkeep, going: Versions, failure: LastFailure) -> Upkeep:
    """Say why a removal failed. Some of the versions may be gone, so they answer nothing any more."""
    why = f"It could not be removed: {failure.message}"[:_KEPT_CHARACTERS]
    asked = {version.uri for version in going}
    versions = tuple(
        version.model_copy(update={"kept": why}) if version.uri in asked else version for version in before.versions
    )
    text = (
        f"Versions over versionHistoryLimit could not be removed: {failure.message} It is tried again after the next "
        "version is published."
    )
    return replace(before, versions=versions, events=(*before.events, EventNote(Reason.REMOVAL_FAILED, text, True)))
