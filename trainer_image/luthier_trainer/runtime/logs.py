"""The log: readable on a console, structured for machines, and a copy for the artifact.

Every line carries the resource and the run that it belongs to. LUTHIER_LOG_FORMAT=json writes one JSON object per line.
"""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from luthier_api.documents import Origin

FORMAT_VARIABLE = "LUTHIER_LOG_FORMAT"
# They log each request or each file, which tells nothing here.
_NOISY = (
    "botocore",
    "boto3",
    "urllib3",
    "s3transfer",
    "httpx",
    "httpcore",
    "filelock",
    "huggingface_hub",
    "transformers",
)


class ReadableFormatter(logging.Formatter):
    """Time, level and message."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        text = f"{_time(record):%H:%M:%S} {record.levelname:<7} {record.getMessage()}"
        return text + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


class JsonFormatter(logging.Formatter):
    """One JSON object per line, with the resource that the run belongs to.

    Args:
        origin: the resource; None without Kubernetes.
    """

    def __init__(self, origin: Origin | None) -> None:
        super().__init__()
        self._origin = {} if origin is None else origin.to_wire()

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        fields = {
            "time": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
            **self._origin,
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


@contextmanager
def logging_to(console_log: Path, origin: Origin | None) -> Iterator[None]:
    """Log to standard error and to a file for the artifact, until left."""
    as_json = os.environ.get(FORMAT_VARIABLE) == "json"
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(JsonFormatter(origin) if as_json else ReadableFormatter())
    copy = logging.FileHandler(console_log, encoding="utf-8")
    copy.setFormatter(ReadableFormatter())
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.INFO)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    handlers = (console, copy)
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(before)


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)
