"""How the operator logs: one JSON object a line, or text for people, with the resource that a line is about."""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

_NOISY = ("kopf.objects", "kopf.activities", "aiohttp.access")


def configure(log_format: str, level: str) -> None:
    """Set up logging for the process."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        fields = "%(asctime)s %(levelname)s %(name)s %(message)s"
        handler.setFormatter(JsonFormatter(fields, rename_fields={"asctime": "time", "levelname": "level"}))
    else:
        handler.setFormatter(_Text("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # kopf tells of every event that it hands over; what is done about it is told by ourselves.
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        resource = getattr(record, "resource", None)
        return f"{text} ({record.__dict__['namespace']}/{resource})" if resource else text
