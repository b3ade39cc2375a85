"""What an API server's answer means, said once.

ClusterError
├── Refused           the object is not acceptable (invalid, forbidden): say so, try again slowly
│   └── QuotaExceeded a quota of the namespace leaves no room for it
├── Gone              the object that was spoken of is not there, or is another one of the same name
├── ApiNotInstalled   the kind of object is not known: its CRD is missing
├── Unexpected        what a correct operator with its role does not get: a bug, or a role that lacks a rule
└── Transient         throttling, server trouble, network, a token that has expired: try again soon
    ├── Expired       a list or a watch cannot go on where it was: begin it anew
    └── Conflict      the object is not as it was when it was read
        └── Exists    there is an object of that name already
"""

import json
from collections.abc import Mapping

from luthier_operator.kube.pace import retry_after_s


class ClusterError(Exception):
    """The API server did not do what it was asked. The message is one sentence for people."""


class Refused(ClusterError):
    """The object is not acceptable to the API server."""


class QuotaExceeded(Refused):
    """A quota of the namespace leaves no room for the object: it may be accepted later, as it is."""


class Gone(ClusterError):
    """The object is not there."""


class ApiNotInstalled(ClusterError):
    """The cluster does not know this kind of object."""


class Transient(ClusterError):
    """Trying again may help, after `retry_after_s` if the server said so."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        """Remember how long the server wants to be left alone."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Expired(Transient):
    """A list or a watch cannot go on where it was."""


class Conflict(Transient):
    """The object has changed since it was read, or is not the one that was meant."""


class Exists(Conflict):
    """There is an object of that name already."""


class Unexpected(ClusterError):
    """An answer that a correct operator does not get, such as 403 for something that its role should allow."""


def error_of(status: int, body: bytes, headers: Mapping[str, str]) -> ClusterError:
    """Return the meaning of an answer other than success."""
    message, reason, details = _parse(body)
    text = f"{status} {reason}: {message}" if reason else f"{status}: {message}"
    match status:
        case 404 if details.get("name"):
            return Gone(message)
        case 404:
            return ApiNotInstalled(message)
        case 400 | 413 | 422:
            return Refused(message)
        case 403 if "exceeded quota" in message:
            return QuotaExceeded(message)
        case 403 if "being terminated" in message:
            return Gone(message)
        case 409:
            return Exists(text) if reason == "AlreadyExists" else Conflict(text)
        case 410:
            return Expired(text)
        case 401:
            return Transient(f"the API server does not accept the operator's token, which is read again ({text})")
        case _ if status == 429 or status >= 500:
            return Transient(text, retry_after_s(headers))
    return Unexpected(text)


def _parse(body: bytes) -> tuple[str, str, Mapping[str, object]]:
    """Read a Status object; a proxy's or a broken server's answer need not be one."""
    try:
        status = json.loads(body)
    except ValueError:
        return " ".join(body[:300].decode(errors="replace").split()), "", {}
    if not isinstance(status, dict):
        return str(status)[:300], "", {}
    return str(status.get("message", "")), str(status.get("reason", "")), status.get("details") or {}
