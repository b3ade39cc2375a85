"""Conditions, and the one rule about them: lastTransitionTime moves only when status does."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from luthier_api.base import ApiModel, Message, Text, Timestamp
from luthier_api.reasons import ConditionType, Reason

ConditionStatus = Literal["True", "False", "Unknown"]


class Condition(ApiModel):
    """A Kubernetes condition."""

    type: Text = Field(description="Type of the condition.")
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: Text = Field(description="One CamelCase word, for programs.")
    message: Message = Field(default="", description="One sentence for people: what happened, and what to do.")
    last_transition_time: Timestamp = Field(description="When status last changed.")
    observed_generation: int = Field(default=0, description="Generation of the spec that this condition describes.")


_KEYED_BY_TYPE = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}


NOT_SEEN_YET: dict[str, JsonValue] = {"observedGeneration": 0}
"""What the API server writes as the status of a new resource. Without it, kstatus would take one that no operator has
seen yet for one with which all is well."""


class ResourceStatus(ApiModel):
    """What the status of every resource begins with."""

    observed_generation: Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})] = Field(
        default=0, description="Generation of the spec that this status describes."
    )
    phase: Text = Field(default="Pending", description="One word, for display. Programs read the conditions.")
    conditions: Annotated[list[Condition], Field(max_length=16, json_schema_extra=_KEYED_BY_TYPE)] = Field(
        default=[],
        description="Ready, Reconciling and Stalled as kstatus defines them; Prepared, Published and, while it is so, "
        "StorageFailing of a FineTuneJob; Available and, with expose, Exposed of a ModelDeployment, and with "
        "observe.drift, Drifting.",
    )


_LONGEST = 4096


def merge_conditions(
    previous: Sequence[Condition],
    wanted: Iterable[tuple[ConditionType, bool | None, Reason, str]],
    *,
    generation: int,
    now: str,
) -> list[Condition]:
    """Return the wanted conditions, each with the transition time it had if its status is unchanged.

    Args:
        previous: the conditions that the resource has now.
        wanted: rows of (type, status, reason, message); a status of None means Unknown.
        generation: the spec's generation that was observed.
        now: RFC 3339 time for those that change.
    """
    before = {condition.type: condition for condition in previous}
    merged = []
    for type_, value, reason, message in wanted:
        status: ConditionStatus = "Unknown" if value is None else "True" if value else "False"
        old = before.get(type_)
        since = old.last_transition_time if old and old.status == status else now
        merged.append(
            Condition(
                type=type_,
                status=status,
                reason=reason,
                message=message if len(message) <= _LONGEST else message[: _LONGEST - 1] + "…",
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    return merged


def find_condition(conditions: Iterable[Condition], type_: ConditionType) -> Condition | None:
    """Return the condition of this type, if there is one."""
    return next((condition for condition in conditions if condition.type == type_), None)
