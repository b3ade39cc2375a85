"""The request log: what stands in it, when it is written, and that neither load nor storage can hold up a request."""

import gzip
import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from luthier_api.documents import RequestLogConfig
from luthier_api.training import Task
from luthier_artifacts import StorageUnavailable
from luthier_serving.answers import Answer, Row, Span, Text
from luthier_serving.observe import request_log
from luthier_serving.observe.log_lines import LoggedRequest, json_lines
from luthier_serving.observe.request_log import RequestLog
from support.serving.doubles import MODEL, answer

pytestmark = pytest.mark.unit

HOUR_S = 3600.0
AT = 1_767_225_600.25  # 2026-01-01T00:00:00.250Z


def request(texts: list[Text], found: Answer | None = None, *, logged: bool = False, **changes: Any) -> LoggedRequest:
    given = LoggedRequest(
        *(AT, "id-1", "rev-1", 0.0125, 200, len(texts), texts if logged else None, found or answer(texts), None)
    )
    return given._replace(**changes)


def lines(logged: LoggedRequest) -> list[dict[str, Any]]:
    return [json.loads(line) for line in json_lines(logged)]


class Storage:
    """Remembers objects; fails while it is down, hangs while it is held."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.down, self.held, self.asked = False, threading.Event(), threading.Event()
        self.held.set()

    def write(self, key: str, data: bytes) -> None:
        self.asked.set()
        assert self.held.wait(10)
        if self.down:
            raise StorageUnavailable("The storage does not answer; it is tried again.")
        self.objects[key] = data

    def lines(self) -> list[dict[str, Any]]:
        return [
            json.loads(line) for key in sorted(self.objects) for line in gzip.decompress(self.objects[key]).splitlines()
        ]


@contextmanager
def logging_to(
    storage: Storage, *, flush_s: float = HOUR_S, share: float = 1.0, draws: Any = None
) -> Iterator[RequestLog]:
    config = RequestLogConfig(uri="s3://logs/requests", share=share, flush_s=flush_s)
    draw = draws.__next__ if draws else lambda: 0.0
    log = RequestLog(config, "team/reviews", "replica-1", itertools.count(1), write=storage.write, draw=draw)
    try:
        yield log
    finally:
        storage.held.set()
        log.close()


def test_a_line_says_who_answered_what_and_how_fast_and_not_to_which_text() -> None:
    [found] = lines(request(["a secret"], Answer([Row([0.25, 0.75], tokens=7)], MODEL, "r")))
    assert found == {
        "time": "2026-01-01T00:00:00.250Z", "requestId": "id-1", "revision": "rev-1", "version": "v1",
        "latencyMs": 12.5, "status": 200, "count": 1, "index": 0, "tokens": 7, "prediction": "positive",
        "confidence": 0.75,
    }  # fmt: skip


def test_a_list_has_a_line_for_each_text_and_texts_only_if_they_are_asked_for() -> None:
    found = lines(request(["one", "poison", "three"], logged=True))
    assert [(each["index"], each["text"]) for each in found] == [(0, "one"), (1, "poison"), (2, "three")]
    assert found[1]["error"] == "The model failed on this text." and "prediction" not in found[1]
    [pair] = lines(request([("first", "second")], logged=True))
    assert (pair["text"], pair["textPair"]) == ("first", "second")
    assert "text" not in lines(request(["one"]))[0]


def test_what_quotes_a_text_is_left_out_with_the_text() -> None:
    model = MODEL._replace(task=Task.TOKEN_CLASSIFICATION, labels=("O", "B-PER"))
    spans = Answer([Row([Span(0, 3, 1, 0.9)], tokens=4)], model, "r")
    [without], [with_text] = (lines(request(["Ada saw"], spans, logged=logged)) for logged in (False, True))
    assert without["prediction"] == [{"label": "PER", "start": 0, "end": 3, "confidence": 0.9}]
    assert with_text["prediction"][0]["text"] == "Ada" and "Ada" not in json.dumps(without)


def test_a_request_without_an_answer_has_one_line_that_says_why() -> None:
    failed = request(["a", "b"])._replace(answer=None, status=504, error="The model did not answer within 60 s.")
    assert lines(failed) == [{
        "time": "2026-01-01T00:00:00.250Z", "requestId": "id-1", "revision": "rev-1", "latencyMs": 12.5, "status": 504,
        "count": 2, "version": None, "error": "The model did not answer within 60 s.",
    }]  # fmt: skip


def test_what_waits_is_written_at_the_end_as_one_object_of_the_replica_and_the_day() -> None:
    storage = Storage()
    with logging_to(storage) as log:
        for _ in range(3):
            log.add(request(["a"]))
        assert not storage.objects
    assert list(storage.objects) == ["team/reviews/2026-01-01/replica-1-000001.jsonl.gz"]
    assert len(storage.lines()) == 3 and (log.written, log.dropped) == (3, 0)


def test_what_waits_is_written_each_so_many_seconds() -> None:
    storage = Storage()
    with logging_to(storage, flush_s=0.01) as log:
        for count in (1, 2):
            log.add(request(["a"]))
            deadline = time.monotonic() + 10
            while log.written < count:
                assert time.monotonic() < deadline
                time.sleep(0.001)
    assert len(storage.objects) == 2


def test_an_object_has_a_bounded_size_and_a_full_one_does_not_wait_for_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = request(["a"]).size_bytes
    monkeypatch.setattr(request_log, "OBJECT_BYTES", 3 * size)
    storage = Storage()
    with logging_to(storage) as log:
        for _ in range(3):
            log.add(request(["a"]))
        assert storage.asked.wait(10), "an hour would be too long"
        for _ in range(4):
            log.add(request(["a"]))
    counts = [len(gzip.decompress(data).splitlines()) for _, data in sorted(storage.objects.items())]
    assert sum(counts) == 7 and max(counts) == 3


def test_what_finds_no_room_is_dropped_and_counted_and_what_is_there_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_log, "MAX_WAITING_BYTES", 5 * request(["a"]).size_bytes)
    storage = Storage()
    with logging_to(storage) as log:
        for _ in range(8):
            log.add(request(["a"]))
        assert log.dropped == 3
    assert len(storage.lines()) == 5


def test_texts_count_for_the_room_that_they_take() -> None:
    assert request(["a" * 100_000], logged=True).size_bytes > 200_000 > request(["a" * 100_000]).size_bytes


def test_storage_that_hangs_holds_nobody_up() -> None:
    storage = Storage()
    storage.held.clear()
    with logging_to(storage, flush_s=0.001) as log:
        log.add(request(["a"]))
        assert storage.asked.wait(10)
        before = time.monotonic()
        for _ in range(1000):
            log.add(request(["a"]))
        assert time.monotonic() - before < 1
        storage.held.set()
    assert len(storage.lines()) == 1001


def test_storage_that_is_away_is_tried_again_and_gets_everything_that_had_room() -> None:
    storage = Storage()
    storage.down = True
    with logging_to(storage, flush_s=0.001) as log:
        log.add(request(["a"]))
        assert storage.asked.wait(10)
        log.add(request(["b"]))
        storage.asked.clear()
        assert storage.asked.wait(10) and not storage.objects
        storage.down = False
    assert len(storage.lines()) == 2 and log.dropped == 0


def test_a_request_that_cannot_be_written_down_takes_no_other_along() -> None:
    storage = Storage()
    broken = request(["a"], Answer([Row([0.5, 0.5])], MODEL._replace(labels=()), "r"))
    with logging_to(storage, flush_s=0.001) as log:
        log.add(broken)
        deadline = time.monotonic() + 10
        while not log.dropped:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        log.add(request(["b"]))
    assert len(storage.lines()) == 1 and log.dropped == 1


def test_the_share_decides_who_is_logged_and_a_busy_server_logs_nobody() -> None:
    storage = Storage()
    with logging_to(storage, share=0.3, draws=iter([0.0, 0.29, 0.3, 0.99, 0.1])) as log:
        assert [log.wants(busy=False) for _ in range(4)] == [True, True, False, False]
        assert not log.wants(busy=True) and log.dropped == 1
