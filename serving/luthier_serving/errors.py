"""What can go wrong in the server, as one tree.

    ServingError
    ├── LoadError       a revision cannot start; its text begins with a reason of luthier_api
    └── RequestError    a request is answered with an error; it carries the HTTP status
        ├── Overloaded  503: too many requests are queued
        ├── BodyTooSlow 408: the body did not arrive in time
        └── Unavailable 503: no revision answers

Messages are one sentence: what happened and what to do. A `LoadError` travels as text in the status message of Ray's
application, where the operator finds it behind the marker `LoadError: `.
"""

from luthier_api.reasons import Reason


class ServingError(Exception):
    """Base class of the server's own errors."""


class LoadError(ServingError):
    """The model cannot be loaded. Its text is `<Reason>: <sentence>`."""

    def __init__(self, reason: Reason, sentence: str):
        super().__init__(reason, sentence)
        self.reason = reason
        self.sentence = " ".join(sentence.split())

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.sentence}"


class RequestError(ServingError):
    """The request is answered with this status and sentence.

    Attributes:
        status: HTTP status code.
        retry_after_s: seconds for the header Retry-After, or None.
        closes: whether the connection ends with the answer, because the rest of the request is not read.
    """

    status = 500
    retry_after_s: int | None = None
    closes = False

    def __init__(self, sentence: str, *, status: int | None = None):
        super().__init__(sentence)
        if status is not None:
            self.status = status


class Overloaded(RequestError):
    """More requests are queued than the configuration allows."""

    status = 503
    retry_after_s = 1


class BodyTooSlow(RequestError):
    """The body of the request did not arrive in time."""

    status = 408
    closes = True


class Unavailable(RequestError):
    """No revision answers now; one may soon."""

    status = 503
    retry_after_s = 5
