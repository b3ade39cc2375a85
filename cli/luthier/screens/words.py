"""Times, sizes and figures as people say them."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def duration(seconds: float) -> str:
    """Return a length of time with at most two units: 3h20m, 45s."""
    left, said = max(0, int(seconds)), list[str]()
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count or (unit == "s" and not said):
            said.append(f"{count}{unit}")
        if len(said) == 2:
            break
    return "".join(said)


def since(timestamp: str | None, now: datetime) -> str:
    """Return how long ago an RFC 3339 time was; empty for none or for what is no time."""
    if not timestamp:
        return ""
    try:
        then = datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
    except ValueError:
        return ""
    return duration((now - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds())


def size(size_bytes: int) -> str:
    """Return a number of bytes: 17 MB."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("GB is the last unit")


def figure(value: float) -> str:
    """Return a metric with four significant digits, and whole numbers as such."""
    return str(int(value)) if value == int(value) and abs(value) < 1e6 else f"{value:.4g}"


def now_utc() -> datetime:
    """The time now, in UTC."""
    return datetime.now(UTC)
