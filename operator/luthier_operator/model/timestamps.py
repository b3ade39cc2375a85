"""The one form in which times are written, and how they are read back. Pure: the time is always handed in."""

from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    """Return a time as Kubernetes writes it: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_since(text: str, now: datetime) -> float:
    """Return how long ago a time of this form was."""
    return (now - datetime.fromisoformat(text)).total_seconds()
