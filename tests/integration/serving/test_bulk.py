"""Batch predictions as processes on a real S3, with a real model: killed three times, beside each other, stopped."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from luthier_api.documents import Access, BulkDocument, Result
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason
from luthier_artifacts import open_store
from luthier_dev.processes import free_ports
from luthier_dev.waiting import wait_until
from luthier_serving.compute.loading import load_model
from support.serving.bulk import ORIGIN, Written, as_csv

pytestmark = pytest.mark.integration

WORDS = ["good", "bad", "film", "the", "was", "a", "b", "c"]
ROWS, SHARD_ROWS = 3000, 250


def texts(count: int = ROWS) -> list[str]:
    chance = random.Random(11)
    return [" ".join(chance.choices(WORDS, k=chance.randint(1, 12))) for _ in range(count)]


@dataclass
class Place:
    """A prefix of the bucket, and workers that see storage through a server that may kill them."""

    s3: Any
    server: Any
    models: Any
    folder: Path
    uri: str = ""
    worker: subprocess.Popen[str] | None = None
    changes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.uri = self.s3.fresh_uri()
        self.put(texts())

    def put(self, rows: list[str]) -> None:
        content = as_csv([{"key": f"k{number}", "text": text} for number, text in enumerate(rows)])
        open_store(f"{self.uri}/input", self.s3.config).write("reviews.csv", content.encode())

    def document(self, **changes: Any) -> BulkDocument:
        access = Access(endpoint=self.server.endpoint, credentials="output")
        fields: dict[str, Any] = {
            "model": self.models.revision("run", self.models.first, access=access),
            "input_uri": f"{self.uri}/input/reviews.csv",
            "input_access": access,
            "output_uri": f"{self.uri}/output/",
            "output_access": access,
            "shard_rows": SHARD_ROWS,
            "id_column": "key",
            "origin": ORIGIN,
            "begun": "2026-01-01T00:00:00Z",
        }
        return BulkDocument(**{**fields, **self.changes, **changes})

    def start(self, index: int = 0, **changes: Any) -> subprocess.Popen[str]:
        path = self.folder / f"bulk-{index}.json"
        path.write_text(self.document(**changes).to_json())
        (port,) = free_ports(1)
        environment = {
            **os.environ,
            "JOB_COMPLETION_INDEX": str(index),
            "LUTHIER_OUTPUT_AWS_ACCESS_KEY_ID": self.s3.access_key,
            "LUTHIER_OUTPUT_AWS_SECRET_ACCESS_KEY": self.s3.secret_key,
            "LUTHIER_CACHE": str(self.folder / "cache"),
            "LUTHIER_TERMINATION_LOG": str(self.folder / f"termination-{index}"),
        }
        command = [sys.executable, "-W", "ignore", "-m", "luthier_serving.bulk", str(path), "--port", str(port)]
        with (self.folder / "log").open("a") as log:
            self.worker = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        return self.worker

    def end(self) -> tuple[int, str]:
        """Wait for the worker's end; return its exit code and its standard output."""
        assert self.worker
        output, _ = self.worker.communicate(timeout=120)
        return self.worker.returncode, output

    def finish(self) -> Written:
        """Run a worker to its end; return what it has written."""
        self.start()
        code, output = self.end()
        assert code == 0, (self.folder / "log").read_text()[-3000:]
        predicted = Result.from_json(output).predicted
        assert predicted and predicted.complete
        return Written(predicted.output, self.s3.config)

    def stored(self, pattern: str) -> list[str]:
        """Return the objects of the output whose names match."""
        return [i.key for i in open_store(f"{self.uri}/output", self.s3.config).list() if re.search(pattern, i.key)]


@pytest.fixture
def place(s3: Any, faulty_server: Any, models: Any, tmp_path: Path) -> Iterator[Place]:
    made = Place(s3, faulty_server, models, tmp_path)
    yield made
    if made.worker and made.worker.poll() is None:
        made.worker.kill()
        made.worker.communicate()


def is_put(handler: BaseHTTPRequestHandler, pattern: str) -> bool:
    return handler.command == "PUT" and re.search(pattern, handler.path) is not None


def kill_in_upload(place: Place, pattern: str) -> None:
    """Kill the worker when half of an object has come."""

    def fault(handler: Any) -> bool:
        if not is_put(handler, pattern):
            return False
        handler.rfile.read(int(handler.headers["Content-Length"]) // 2)
        place.worker.kill()  # type: ignore[union-attr]
        handler.close_connection = True
        return True

    place.server.fault = fault


def kill_after(place: Place, pattern: str, after_s: float = 0.0) -> None:
    """Kill the worker when an object is stored, before it hears of that, or a while after."""

    def fault(handler: Any) -> bool:
        if not is_put(handler, pattern):
            return False
        answer = place.server.forward(handler)
        if after_s:
            handler.answer(*answer)
            threading.Timer(after_s, place.worker.kill).start()  # type: ignore[union-attr]
        else:
            place.worker.kill()  # type: ignore[union-attr]
        return True

    place.server.fault = fault


def kill_before(place: Place, pattern: str) -> None:
    """Kill the worker when it is about to store an object."""

    def fault(handler: Any) -> bool:
        if not is_put(handler, pattern):
            return False
        place.worker.kill()  # type: ignore[union-attr]
        handler.close_connection = True
        return True

    place.server.fault = fault


def check_exactly_once(written: Written, wanted: list[str]) -> list[dict[str, Any]]:
    rows = written.rows
    assert [row["row"] for row in rows] == list(range(len(wanted)))
    assert [row["id"] for row in rows] == [f"k{number}" for number in range(len(wanted))]
    assert not [row for row in rows if "error" in row]
    manifest = written.manifest
    assert manifest.rows == len(wanted) and [part.name for part in manifest.parts] == written.files
    for part in manifest.parts:
        assert hashlib.sha256(written.content(part.name)).hexdigest() == part.sha256
    return rows


def test_a_run_killed_at_its_worst_moments_has_exactly_one_output_for_each_input(
    place: Place, models: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kill_in_upload(place, "part-00002")
    place.start()
    assert place.end()[0] == -signal.SIGKILL
    assert len(place.stored("/part-")) == len(place.stored("/_parts/")) == 2, "no half of a part"

    kill_after(place, "part-00005")
    place.start()
    assert place.end()[0] == -signal.SIGKILL
    assert (len(place.stored("/part-")), len(place.stored("/_parts/"))) == (6, 5), "stored, and not noted"

    kill_after(place, "_parts/00007", after_s=0.01)
    place.start()
    assert place.end()[0] == -signal.SIGKILL
    assert len(place.stored("/part-")) == 8, "in the middle of the next shard"

    kill_before(place, "_manifest")
    place.start()
    assert place.end()[0] == -signal.SIGKILL
    assert (len(place.stored("/part-")), place.stored("_manifest")) == (12, [])

    place.server.fault = lambda handler: False
    before = {key: i.modified for key, i in infos(place).items()}
    rows = check_exactly_once(place.finish(), texts())
    assert {key: i.modified for key, i in infos(place).items()} == before, "no part is written twice"

    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LUTHIER_OUTPUT_AWS_ACCESS_KEY_ID", place.s3.access_key)
    monkeypatch.setenv("LUTHIER_OUTPUT_AWS_SECRET_ACCESS_KEY", place.s3.secret_key)
    model = load_model(place.document().model)
    for number in range(0, ROWS, 97):
        (alone,) = model.predict([texts()[number]])
        label = ("negative", "positive")[alone.values[1] > alone.values[0]]  # type: ignore[operator]
        assert rows[number]["prediction"] == label
        assert rows[number]["probabilities"]["positive"] == pytest.approx(alone.values[1], abs=2e-6)


def infos(place: Place) -> dict[str, Any]:
    found = open_store(f"{place.uri}/output", place.s3.config).list()
    return {info.key: info for info in found if "/part-" in info.key}


def test_workers_beside_each_other_share_the_shards_and_one_writes_the_manifest(place: Place) -> None:
    workers = [place.start(index, workers=3) for index in range(3)]
    ends = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], (place.folder / "log").read_text()[-3000:]
    results = [Result.from_json(output).predicted for output in ends]
    complete = [result for result in results if result and result.complete]
    assert complete
    check_exactly_once(Written(complete[0].output, place.s3.config), texts())


def test_a_worker_that_is_asked_to_stop_ends_as_preempted_and_the_next_one_goes_on(place: Place) -> None:
    worker = place.start()
    wait_until(lambda: None if place.stored("/_parts/00001") else "no part", "parts", timeout_s=60, interval_s=0.02)
    worker.send_signal(signal.SIGTERM)
    code, _ = place.end()
    failure = Result.from_json((place.folder / "termination-0").read_text()).failure
    assert code == ExitCode.PREEMPTED and failure and failure.reason is Reason.PREEMPTED
    assert len(place.stored("/part-")) < 12
    check_exactly_once(place.finish(), texts())


def test_an_input_that_changes_under_the_run_ends_it_with_a_sentence(place: Place) -> None:
    kill_after(place, "part-00003")
    place.start()
    assert place.end()[0] == -signal.SIGKILL
    place.server.fault = lambda handler: False
    place.put([*texts(), "good film"])
    place.start()
    code, output = place.end()
    failure = Result.from_json(output).failure
    assert code == ExitCode.INTEGRITY_ERROR and failure and "changed while the run was under way" in failure.message


def test_what_cannot_be_done_ends_with_an_exit_code_and_a_sentence(place: Place) -> None:
    place.start(output_uri="s3://no-such-bucket/x/")
    ended, output = place.end()
    failure = Result.from_json(output).failure
    assert ended == ExitCode.BUCKET_NOT_FOUND and failure and "The bucket no-such-bucket" in failure.message
    assert json.loads((place.folder / "termination-0").read_text()) == json.loads(output)
