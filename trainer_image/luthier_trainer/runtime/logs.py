"""The log: readable on a console, structured for programs, and a copy for the artifact.

Every line of JSON carries the resource and the run that it belongs to, by the names that all programs of Luthier use.
"""

import logging
import logging.config
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from luthier_api.documents import Origin
from luthier_api.logs import FORMAT_VARIABLE, LogFormat, TextFormatter, logging_config

# They log every request or file, which is noise here.
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
_TEXT: dict[str, object] = {"()": TextFormatter, "fmt": "%(asctime)s %(levelname)-7s %(message)s"}


@contextmanager
def logging_to(console_log: Path, origin: Origin | None) -> Iterator[None]:
    """Log to standard error and to a file for the artifact within this context."""
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    log_format: LogFormat = "json" if os.environ.get(FORMAT_VARIABLE) == "json" else "text"
    config = logging_config(log_format, fields=_fields(origin), quiet=_NOISY, text=_TEXT)
    config["formatters"]["copy"] = dict(_TEXT)
    config["handlers"]["copy"] = {
        "class": "logging.FileHandler",
        "filename": console_log,
        "encoding": "utf-8",
        "formatter": "copy",
    }
    config["root"]["handlers"].append("copy")
    logging.config.dictConfig(config)
    ours = root.handlers[:]
    # A program that embeds the trainer keeps its own handlers.
    root.handlers += [handler for handler in before[1] if handler not in ours]
    try:
        yield
    finally:
        for handler in ours:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(before[0])


def _fields(origin: Origin | None) -> dict[str, object]:
    """Return the fields of every line: those of the FineTuneJob that a run belongs to, if there is one."""
    if origin is None:
        return {}
    about = {"namespace": origin.namespace, "resource": origin.name, "generation": origin.generation}
    return {"kind": "FineTuneJob", **about, "run": origin.run}
