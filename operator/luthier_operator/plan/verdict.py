"""How it stands with a resource: what a policy says, before it is written as conditions.

Shared by all kinds of resource; each words its own verdicts in `verdicts`.
"""

from dataclasses import dataclass

from luthier_api.reasons import Reason


@dataclass(frozen=True)
class Admission:
    """Whether Kueue has admitted the Job that the run waits for."""

    admitted: bool
    reason: Reason
    message: str


@dataclass(frozen=True)
class Verdict:
    """How it stands with a resource. The conditions Ready, Reconciling and Stalled follow from it."""

    phase: str
    reason: Reason
    message: str
    ready: bool = False
    stalled: bool = False
    reconciling: bool = False
    """Whether work goes on, or waits for something that may come by itself."""
    admission: Admission | None = None
    """Only of a run that waits in a queue."""


def image_not_allowed(violation: str) -> Verdict:
    """The operator's allow-list does not have the image that the spec names."""
    return Verdict("Failed", Reason.IMAGE_NOT_ALLOWED, violation, stalled=True)
