"""One line of JSON has the same fields in every program."""

import json
import logging
import logging.config
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from luthier_api.logs import logging_config

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def the_root_logger_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_of_json_has_time_level_logger_message_and_what_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    def add(record: logging.LogRecord) -> bool:
        record.__dict__["generation"] = 3
        return True

    logging.config.dictConfig(logging_config("json", fields={"resource": "sentiment"}, add=add))
    logging.getLogger("luthier.test").warning("größer als %d", 5, extra={"namespace": "team"})
    line = json.loads(capsys.readouterr().err)
    time = datetime.fromisoformat(line.pop("time"))
    assert time.utcoffset() == timedelta(0) and abs(datetime.now(UTC) - time) < timedelta(minutes=1)
    assert line == {
        "level": "WARNING",
        "logger": "luthier.test",
        "message": "größer als 5",
        "resource": "sentiment",
        "namespace": "team",
        "generation": 3,
    }


def test_an_exception_stays_in_the_line_that_reports_it(capsys: pytest.CaptureFixture[str]) -> None:
    logging.config.dictConfig(logging_config("json"))
    try:
        raise KeyError("missing")
    except KeyError:
        logging.getLogger().exception("failed")
    line = json.loads(capsys.readouterr().err)
    assert line["message"] == "failed" and "KeyError: 'missing'" in line["exc_info"]


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logging.config.dictConfig(logging_config("text"))
    logging.getLogger("luthier.test").info("ready")
    time, rest = capsys.readouterr().err.split(" ", 1)
    assert rest == "INFO    ready\n" and datetime.fromisoformat(time).utcoffset() == timedelta(0)


@pytest.mark.parametrize(("level", "kept"), [("DEBUG", ["warning"]), ("ERROR", [])])
def test_of_a_quiet_library_only_warnings_are_kept(
    capsys: pytest.CaptureFixture[str], level: str, kept: list[str]
) -> None:
    logging.config.dictConfig(logging_config("text", level, quiet=["luthier.noisy"]))
    logging.getLogger("luthier.noisy").info("info")
    logging.getLogger("luthier.noisy").warning("warning")
    assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()] == kept
