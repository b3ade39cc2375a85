"""The one form in which times are written, and how they are read back. Pure: the time is always handed in.

Inside the operator a time is a `datetime`; it is text only in what the cluster stores.
"""

from datetime import UTC, datetime

EARLIEST = datetime.min.replace(tzinfo=UTC)
"""Before all others: stands for a time that is not known, where times are compared."""


def rfc3339(moment: datetime) -> str:
    """Return a time as Kubernetes writes it: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_if_known(moment: datetime | None) -> str | None:
    """Return a time as Kubernetes writes it, or None."""
    return rfc3339(moment) if moment else None


def parse_time(text: str | None) -> datetime | None:
    """Return the time that a text names, or None if it names none; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def seconds_since(moment: datetime | None, now: datetime) -> float:
    """Return how long ago a time was; 0 if it is not known."""
    return (now - moment).total_seconds() if moment else 0.0


def duration(seconds: float) -> str:
    """Return a time as people say it, in its two largest units: 4m10s, 2h5m, 3d4h."""
    left = round(seconds)
    units = [(86400, "d"), (3600, "h"), (60, "m"), (1, "s")]
    parts: list[str] = []
    for size, unit in units:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
    return "".join(parts[:2]) or "0s"
