"""The condition Drifting: whether what a version is asked and answers is still as in its training. Pure.

The replicas count, and here their counts are added up and compared with the version's reference. A mean of the figures
of replicas would not be the figure of all requests.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

from luthier_api.base import decimal_text
from luthier_api.conditions import Condition, find_condition
from luthier_api.documents import (
    FEATURE_TITLES,
    DriftReport,
    Feature,
    Profile,
    ReferenceDocument,
    ServerReport,
    compare_profiles,
)
from luthier_api.observe import Drift
from luthier_api.reasons import ConditionType, Reason
from luthier_operator.manifests.rayservice import Application
from luthier_operator.model.actions import EventNote
from luthier_operator.model.resources import ModelDeploymentResource
from luthier_operator.model.views import PodReport

# Counts wake nobody, so the figures are looked at by the clock.
INTERVAL_S = 30.0

Row = tuple[ConditionType, bool | None, Reason, str]


@dataclass(frozen=True)
class Verdict:
    """What the figures say.

    Attributes:
        drifting: None if nothing can be concluded.
        over: titles of the features above the limit.
    """

    drifting: bool | None
    reason: Reason
    message: str
    over: tuple[str, ...] = ()


def wanted(resource: ModelDeploymentResource) -> Drift | None:
    """Return what the spec asks for."""
    observe = resource.spec.observe
    return observe.drift if observe else None


def conditions(
    resource: ModelDeploymentResource, answering: Application | None, reports: Sequence[PodReport]
) -> list[Row]:
    """Return the condition of the version that answers; none if drift is not asked for, or nothing answers.

    Its message keeps its figures as long as it says the same: they move with every request, and each write of a status
    reaches all who watch it.
    """
    drift = wanted(resource)
    if drift is None or answering is None:
        return []
    verdict = judge(drift, answering, [each.report for each in reports if each.report])
    before = find_condition(resource.status.conditions, ConditionType.DRIFTING)
    message = before.message if before and _says_the_same(before, verdict, drift, answering) else verdict.message
    return [(ConditionType.DRIFTING, verdict.drifting, verdict.reason, message)]


def judge(drift: Drift, answering: Application, reports: Iterable[ServerReport]) -> Verdict:
    """Return what the replicas' counts say of a version, added up."""
    found = [each.drift[answering.name] for each in reports if each.drift and answering.name in each.drift]
    reference, version = _reference(found), f"Version {answering.version}"
    if found and reference is None:
        text = f"{version} has no reference.json, which the trainer writes since 0.2.0: train it again to see drift."
        return Verdict(None, Reason.NO_REFERENCE, text)
    recent = reduce(Profile.plus, (each.recent for each in found), Profile())
    if reference is None or recent.texts < drift.min_requests:
        text = f"{version} has had fewer than {drift.min_requests} requests in the last {drift.window_seconds} s"
        return Verdict(None, Reason.TOO_FEW_REQUESTS, f"{text}; {_limit(drift)}.")
    return _compared(drift, version, reference, recent)


def _compared(drift: Drift, version: str, reference: ReferenceDocument, recent: Profile) -> Verdict:
    limit, counted = float(drift.limit), f"over {recent.texts} requests; {_limit(drift)}"
    figures = compare_profiles(reference, recent)
    over: list[Feature] = [name for name, (psi, chance) in figures.items() if psi > max(limit, chance)]
    if over:
        shown = ", ".join(f"{FEATURE_TITLES[name]}: PSI {decimal_text(figures[name][0], 2)}" for name in over)
        text = f"{version}: {shown} {counted}. Its texts or answers are not as in its training."
        return Verdict(True, Reason.DRIFTING, text, tuple(FEATURE_TITLES[name] for name in over))
    if not figures:
        text = f"{version} has nothing in its reference.json that could be compared; {_limit(drift)}."
        return Verdict(None, Reason.NO_REFERENCE, text)
    largest = max(figures, key=lambda name: figures[name][0])
    psi, chance = figures[largest]
    text = f"{version}: the largest PSI is {decimal_text(psi, 2)} ({FEATURE_TITLES[largest]}) {counted}"
    if psi > limit:
        text += f", and chance alone makes up to {decimal_text(chance, 2)} of a reference of {reference.profile.texts}"
    return Verdict(False, Reason.WITHIN_LIMIT, f"{text}.")


def transition(before: Sequence[Condition], after: Sequence[Condition]) -> tuple[EventNote, ...]:
    """Return an Event if the texts begin to drift, or no longer do."""
    old, new = (find_condition(each, ConditionType.DRIFTING) for each in (before, after))
    was, now = (each is not None and each.status == "True" for each in (old, new))
    if new is None or was == now or (was and new.status == "Unknown"):
        return ()
    return (EventNote(Reason(new.reason), new.message, warning=now),)


def _reference(found: Iterable[DriftReport]) -> ReferenceDocument | None:
    return next((each.reference for each in found if each.reference), None)


def _limit(drift: Drift) -> str:
    return f"limit {decimal_text(float(drift.limit))}"


def _says_the_same(before: Condition, verdict: Verdict, drift: Drift, answering: Application) -> bool:
    status = "Unknown" if verdict.drifting is None else str(verdict.drifting)
    same = before.status == status and before.reason == verdict.reason and answering.version in before.message
    titles = tuple(title for title in FEATURE_TITLES.values() if f"{title}: PSI" in before.message)
    counted = verdict.reason is not Reason.NO_REFERENCE and _limit(drift) not in before.message
    return same and titles == verdict.over and not counted
