"""versionHistoryLimit: which versions go, and how, without a spec ever being answered by one that is gone.

    over the limit -> marked in the status (`removing`): answers no spec any more    in use again: the mark goes
                   -> old Jobs of the run are deleted, since their result names the version
                   -> a Job removes it from storage
                   -> removed: dropped from the status    kept by an alias, or failed: the status says why (`kept`)

Kept are the versions that answered a spec last, up to the limit; those that a ModelDeployment serves; and the last one
that passed its gates. Removing waits until no run is under way, and gives way to a run that begins: prepare must not
find a version that is being removed. What is kept, or failed, is tried again when the next version is over the limit.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from luthier_api.documents import Removed
from luthier_api.finetunejob import FineTuneJobSpec, LastFailure, VersionStatus
from luthier_api.reasons import Reason
from luthier_operator.manifests import removal
from luthier_operator.model.actions import Apply, Delete, EventNote, Manifest
from luthier_operator.model.views import JobView
from luthier_operator.plan.finetunejob import removals, verdicts
from luthier_operator.plan.finetunejob.situation import Decision, Situation, deletions

Versions = tuple[VersionStatus, ...]
_KEPT_CHARACTERS = 500
_LOOK_AGAIN_S = 600.0


@dataclass(frozen=True)
class Pruning:
    """What is done about old versions, beside what a policy decided."""

    versions: Versions
    deletes: tuple[Delete, ...] = ()
    applies: tuple[Apply, ...] = ()
    events: tuple[EventNote, ...] = ()
    assumes_unused: bool = False
    """Whether it depends on no ModelDeployment serving a version, which the API server itself is to be asked."""
    requeue_after_s: float | None = None


def must_go_first(s: Situation) -> Decision | None:
    """What is deleted before a run begins: a removal under way, and old Jobs whose result names a removed version.

    Both are waited for. A removal that is interrupted is made again when no run is under way.
    """
    removing = {version.spec_hash for version in s.record.versions if version.removing}
    old = s.jobs_of_run if s.wanted.spec_hash in removing and not s.run else []
    pruning = [job for job in s.removals if job.live]
    if not old and not pruning:
        return None
    return Decision(verdicts.waiting_for_removal(), s.record, deletes=deletions([*old, *pruning]))


def pruning_of(s: Situation, decision: Decision) -> Pruning:
    """Return what becomes of the versions, given what a policy decided."""
    done = _with_outcomes(s, decision.record.versions)
    under_way = decision.applies or decision.verdict.reconciling or any(job.live for job in s.jobs)
    if under_way:
        return done
    wanted = _marked(_back_in_use(s, done.versions), s.spec, s.observed.in_use)
    if surplus(wanted, s.spec, ()) != surplus(wanted, s.spec, s.observed.in_use):
        done = replace(done, requeue_after_s=_LOOK_AGAIN_S)  # not everything that ends a service wakes this resource
    if any(version.removing and version not in done.versions for version in wanted):
        return replace(done, versions=wanted, assumes_unused=True)  # the Job comes after this is written
    return _next_step(s, replace(done, versions=wanted))


def surplus(versions: Versions, spec: FineTuneJobSpec, in_use: Collection[str]) -> set[str]:
    """Return the URIs of the versions that are over the limit and that nothing keeps."""
    if spec.version_history_limit is None:
        return set()
    known = list(dict.fromkeys(version.uri for version in versions))
    kept = set(known[: spec.version_history_limit])
    kept |= {version.uri for version in versions if version.version in in_use}
    kept |= {next((version.uri for version in versions if version.promotable and not version.removing), "")}
    return set(known) - kept


def _back_in_use(s: Situation, versions: Versions) -> Versions:
    """Take the mark from what came into use before a Job began to remove it: it is whole, and answers specs again."""
    if s.removals:
        return versions
    return tuple(
        version.model_copy(update={"removing": None})
        if version.removing and not version.kept and version.version in s.observed.in_use
        else version
        for version in versions
    )


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


def _to_remove(s: Situation, versions: Iterable[VersionStatus]) -> Versions:
    """Return the versions that a Job is to remove now: marked, not failed before, and not served since."""
    return tuple(
        version
        for version in versions
        if version.removing and not version.kept and version.version not in s.observed.in_use
    )


def _manifest(s: Situation, removing: Versions) -> Manifest:
    return removal.of_versions(s.resource.meta, s.spec, removing, s.observed.in_use, s.defaults)


def _next_step(s: Situation, done: Pruning) -> Pruning:
    """Return the next step of a removal: old Jobs first, then the Job that removes."""
    removing = _to_remove(s, done.versions)
    name = _manifest(s, removing)["metadata"]["name"] if removing else ""
    others = [job for job in s.removals if job.live and job.name != name]
    specs = {version.spec_hash for version in removing}
    old = [job for job in s.jobs if job.spec_hash in specs]
    if others or old:
        return replace(done, deletes=done.deletes + deletions([*others, *old]))
    if not removing or s.observed.jobs.has(name):
        return done
    return replace(done, applies=(Apply(_manifest(s, removing), once=True),), assumes_unused=True)


def _with_outcomes(s: Situation, versions: Versions) -> Pruning:
    """Return the versions without those that Jobs have removed; of those that they have not, say why."""
    removing = _to_remove(s, versions)
    name = _manifest(s, removing)["metadata"]["name"] if removing else ""
    result = Pruning(versions)
    for job in s.removals:
        if job.outcome is None or job.deleting:
            continue
        outcome = removals.outcome(job)
        if isinstance(outcome, Removed):
            result = _without(result, outcome.removed, s.jobs, s.spec)
        # Its other results are about what it was asked to remove, which may not be what is to be removed now.
        if job.name != name:
            continue
        if outcome is None:
            result = replace(result, deletes=deletions([job]), assumes_unused=True)
        elif isinstance(outcome, Removed):
            result = _keeping(result, removing, outcome.kept)
        else:
            result = _not_removed(result, removing, outcome)
    return result


def _without(before: Pruning, removed: Collection[str], jobs: Sequence[JobView], spec: FineTuneJobSpec) -> Pruning:
    """Drop versions that are removed, unless a Job is left whose result would add them again."""
    of_jobs = {job.spec_hash for job in jobs}
    gone = [
        each for each in before.versions if each.removing and each.version in removed and each.spec_hash not in of_jobs
    ]
    if not gone:
        return before
    names = ", ".join(dict.fromkeys(version.version for version in gone))
    text = f"Removed from storage: {names}; versionHistoryLimit is {spec.version_history_limit}."
    rest = tuple(version for version in before.versions if version not in gone)
    return replace(before, versions=rest, events=(*before.events, EventNote(Reason.PRUNED, text)))


def _keeping(before: Pruning, removing: Versions, kept: dict[str, str]) -> Pruning:
    """Let versions that still exist answer specs again, and say why they are kept."""
    asked = {version.uri for version in removing if version.version in kept}
    versions = tuple(
        version.model_copy(update={"removing": None, "kept": kept[version.version]})
        if version.uri in asked
        else version
        for version in before.versions
    )
    return replace(before, versions=versions)


def _not_removed(before: Pruning, removing: Versions, failure: LastFailure) -> Pruning:
    """Say why a removal failed. Some of the versions may be removed, so they answer no spec any more."""
    why = f"It could not be removed: {failure.message}"[:_KEPT_CHARACTERS]
    asked = {version.uri for version in removing}
    versions = tuple(
        version.model_copy(update={"kept": why}) if version.uri in asked else version for version in before.versions
    )
    text = (
        f"Versions over versionHistoryLimit could not be removed: {failure.message} Luthier tries again after the "
        "next version is published."
    )
    return replace(before, versions=versions, events=(*before.events, EventNote(Reason.REMOVAL_FAILED, text, True)))
