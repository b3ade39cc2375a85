"""How the programs of Luthier log: one configuration, as a value for `logging.config.dictConfig`.

A line of JSON has `time` (RFC 3339, UTC), `level`, `logger`, `message`, then whatever fields the record carries. What a
line is about has the same field names in all programs: `kind`, `namespace`, `resource`, `generation`, `run`. Text, for
people, has the time, the level and the message.

The formatter is python-json-logger's. It is named and not imported: the contract needs pydantic alone, and a program
that logs JSON depends on that package itself.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal

LogFormat = Literal["json", "text"]

FORMAT_VARIABLE = "LUTHIER_LOG_FORMAT"

_JSON = {
    "()": "pythonjsonlogger.json.JsonFormatter",
    "fmt": "%(levelname)s %(name)s %(message)s",
    "rename_fields": {"levelname": "level", "name": "logger"},
    "timestamp": "time",
    "json_ensure_ascii": False,
}


class TextFormatter(logging.Formatter):
    """Lines for people, whose time is RFC 3339 in UTC, as in JSON, so that lines of two machines can be compared."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return the time of a record."""
        moment = datetime.fromtimestamp(record.created, UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_TEXT = {"()": TextFormatter, "fmt": "%(asctime)s %(levelname)-7s %(message)s"}
_NONE: Mapping[str, object] = MappingProxyType({})


def logging_config(
    log_format: LogFormat,
    level: str = "INFO",
    *,
    fields: Mapping[str, object] = _NONE,
    quiet: Iterable[str] = (),
    add: Callable[[logging.LogRecord], bool] | None = None,
    text: Mapping[str, object] = MappingProxyType(_TEXT),
) -> dict[str, Any]:
    """Return the configuration that sends the root logger to standard error.

    Args:
        log_format: json for machines, text for people.
        level: of the root logger.
        fields: fields that every JSON line carries, for instance the run of a training pod.
        quiet: loggers of libraries of which only warnings and worse are kept.
        add: a filter that may add fields to each record.
        text: the formatter of text, as `dictConfig` takes it.
    """
    quiet_level = max(logging.WARNING, logging.getLevelNamesMapping()[level])
    formatter = {**_JSON, "static_fields": dict(fields)} if log_format == "json" else dict(text)
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": formatter},
        "handlers": {
            "console": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "line",
                "filters": [add] if add else [],
            }
        },
        "root": {"level": level, "handlers": ["console"]},
        "loggers": {name: {"level": quiet_level} for name in quiet},
    }
