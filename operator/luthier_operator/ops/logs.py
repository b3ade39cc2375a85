"""How the operator logs: one JSON object a line, or text for people, with the resource that a line is about.

What is being worked on is said once, with `about`, and stands in every line that is logged meanwhile, whoever logs it:
kind, namespace, resource, generation and run.
"""

import logging
import logging.config
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from luthier_api.logs import LogFormat, TextFormatter, logging_config

_NOTHING: Mapping[str, object] = {}
_subject: ContextVar[Mapping[str, object]] = ContextVar("subject", default=_NOTHING)


def configure(log_format: LogFormat, level: str) -> None:
    """Set up logging for the process."""
    text = {"()": _Text, "fmt": "%(asctime)s %(levelname)-7s %(message)s"}
    config = logging_config(log_format, level, quiet=["aiohttp.access"], add=_with_subject, text=text)
    # kopf tells of each attempt and each handler, and of what ends it in several tracebacks; we say it in one line.
    config["loggers"]["kopf"] = {"level": "DEBUG" if level == "DEBUG" else "CRITICAL"}
    logging.config.dictConfig(config)


@contextmanager
def about(**fields: object) -> Iterator[None]:
    """Have these fields in every line that is logged until the end."""
    token = _subject.set({**_subject.get(), **fields})
    try:
        yield
    finally:
        _subject.reset(token)


def learned(**fields: object) -> None:
    """Add what has been found out about the thing that is being worked on, until the end of `about`."""
    _subject.set({**_subject.get(), **fields})


def _with_subject(record: logging.LogRecord) -> bool:
    """Put the subject into a record."""
    for name, value in _subject.get().items():
        if value is not None:
            record.__dict__.setdefault(name, value)
    return True


class _Text(TextFormatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        resource = getattr(record, "resource", None)
        return f"{text} ({record.__dict__['namespace']}/{resource})" if resource else text
