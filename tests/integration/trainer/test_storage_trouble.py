"""Storage that is busy, slow, cut off or lying: a run ends with a right version, or with a reason."""

from __future__ import annotations

import random
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luthier_api.documents import CREDENTIALS_VARIABLE
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason
from luthier_dev.waiting import wait_until
from support.temporary_keys import MountedSecret, OneToken, temporary
from support.trainer.attempts import Trainer, through
from support.trainer.endings import ending

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def busy_for_checkpoints(server: Any, chance: random.Random) -> Callable[[Any], bool]:
    return lambda handler: "/checkpoints/" in handler.path and handler.command == "PUT" and busy(handler)


def busy_for_versions(server: Any, chance: random.Random) -> Callable[[Any], bool]:
    return lambda handler: "/versions/" in handler.path and handler.command == "PUT" and busy(handler)


def busy_now_and_then(server: Any, chance: random.Random) -> Callable[[Any], bool]:
    return lambda handler: chance.random() < 0.15 and busy(handler)


def dropping(server: Any, chance: random.Random) -> Callable[[Any], bool]:
    """The connection ends before the answer, of which the server may have done its part."""

    def fault(handler: Any) -> bool:
        if chance.random() >= 0.1:
            return False
        if chance.random() < 0.5:
            server.forward(handler)
        handler.cut()
        return True

    return fault


def truncating(server: Any, chance: random.Random) -> Callable[[Any], bool]:
    def fault(handler: Any) -> bool:
        if handler.command != "GET" or chance.random() >= 0.2:
            return False
        status, headers, body = server.forward(handler)
        handler.answer(status, headers, body, cut_at=len(body) // 2)
        return True

    return fault


def slow(server: Any, chance: random.Random) -> Callable[[Any], bool]:
    return lambda handler: time.sleep(chance.uniform(0, 0.1)) is not None


def lying(server: Any, chance: random.Random) -> Callable[[Any], bool]:
    """Every answer is whole, and the weights of the base model have one wrong byte."""

    def fault(handler: Any) -> bool:
        if handler.command != "GET" or not handler.path.endswith("/base/model.safetensors"):
            return False
        status, headers, body = server.forward(handler)
        checksums = ("x-amz-checksum", "etag")
        kept = [(name, value) for name, value in headers if not name.lower().startswith(checksums[0])]
        handler.answer(status, kept, body[:-1] + bytes([body[-1] ^ 1]))
        return True

    return fault


def busy(handler: Any) -> bool:
    handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    handler.answer(503, [("Content-Type", "application/xml")], b"<Error><Code>SlowDown</Code></Error>")
    return True


@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        (busy_for_checkpoints, ExitCode.OK, "could not be uploaded"),
        (busy_for_versions, ExitCode.STORAGE_UNAVAILABLE, "try again later"),
        (busy_now_and_then, ExitCode.OK, ""),
        (dropping, ExitCode.OK, ""),
        (truncating, ExitCode.OK, ""),
        (slow, ExitCode.OK, ""),
        (lying, ExitCode.INTEGRITY_ERROR, "has changed since the run was prepared"),
    ],
)
def test_storage_that_fails_gives_a_right_version_or_a_reason(
    bench: Any,
    trainer: Trainer,
    long_run: dict[str, Any],
    faulty_server: Any,
    fault: Callable[[Any, random.Random], Callable[[Any], bool]],
    code: ExitCode,
    sentence: str,
) -> None:
    long_run["spec"]["hyperparameters"]["epochs"] = 4
    long_run = bench.prepared(long_run)
    faulty_server.fault = fault(faulty_server, random.Random(6))
    attempt = trainer.start(through(long_run, faulty_server))
    assert attempt.wait() == code, attempt.log
    assert sentence in attempt.log
    versions = bench.registry.list_versions()
    if code is ExitCode.OK:
        # Downloads and verifies.
        assert ending(bench, "registry", bench.folder / "artifact").steps == 48
    else:
        assert versions == []
        assert attempt.result.failure and attempt.result.failure.message


class Session:
    """Temporary keys of a run: its mounted Secret, and the server that knows which of them are valid."""

    def __init__(self, folder: Path, server: Any) -> None:
        self.server, self.folder = server, folder
        self.secret = MountedSecret(folder / "output", **temporary("first"))
        self.valid = server.fault = OneToken("first")
        self._expired = threading.Event()

    def expire_at(self, matches: Callable[[Any], bool], renew_after_s: float | None = None) -> None:
        """End the session when a request comes that matches, and have the Secret hold the next one some time later."""

        def fault(handler: Any) -> bool:
            if not self._expired.is_set() and matches(handler):
                self._expired.set()
                self.valid.valid = "second"
                if renew_after_s is not None:
                    threading.Timer(renew_after_s, self.renew).start()
            return self.valid(handler)

        self.server.fault = fault

    def renew(self) -> None:
        self.secret.replace(**temporary("second"))


@pytest.fixture
def session(tmp_path: Path, faulty_server: Any) -> Session:
    return Session(tmp_path / "credentials", faulty_server)


def test_keys_that_expire_in_mid_training_cost_nothing_once_the_secret_is_renewed(
    bench: Any, trainer: Trainer, long_run: dict[str, Any], faulty_server: Any, session: Session
) -> None:
    long_run["spec"]["hyperparameters"]["epochs"] = 8
    long_run = bench.prepared(long_run)
    # The second checkpoint, and with it all requests for a while.
    session.expire_at(lambda handler: handler.command == "PUT" and "/checkpoints/" in handler.path and
                      "/3/" not in handler.path, renew_after_s=1.0)  # fmt: skip
    attempt = trainer.start(through(long_run, faulty_server), **{CREDENTIALS_VARIABLE: str(session.folder)})
    assert attempt.wait() == ExitCode.OK, attempt.log
    failed = [
        int(step) for step in re.findall(r"checkpoint of step (\d+) could not be uploaded: The keys", attempt.log)
    ]
    stored = [int(step) for step in re.findall(r"stored the checkpoint of step (\d+)", attempt.log)]
    assert failed and min(stored) < min(failed) and max(stored) > max(failed)
    assert ending(bench, "registry", bench.folder / "artifact").steps == 96


def test_keys_that_expire_before_the_version_is_published_are_waited_for(
    bench: Any, trainer: Trainer, long_run: dict[str, Any], faulty_server: Any, session: Session
) -> None:
    long_run["spec"]["hyperparameters"]["epochs"] = 2
    long_run = bench.prepared(long_run)
    session.expire_at(lambda handler: handler.command == "PUT" and "/versions/" in handler.path, renew_after_s=0.5)
    attempt = trainer.start(through(long_run, faulty_server), **{CREDENTIALS_VARIABLE: str(session.folder)})
    assert attempt.wait() == ExitCode.OK, attempt.log
    assert "is tried again until then" in attempt.log
    assert ending(bench, "registry", bench.folder / "artifact").steps == 24


def test_keys_that_are_not_renewed_in_time_end_the_pod_and_the_next_one_only_publishes(
    bench: Any, trainer: Trainer, long_run: dict[str, Any], faulty_server: Any, session: Session
) -> None:
    long_run["spec"]["hyperparameters"]["epochs"] = 2
    long_run = bench.prepared(long_run)
    here = {CREDENTIALS_VARIABLE: str(session.folder), "LUTHIER_CREDENTIALS_WAIT_S": "0.5"}
    session.expire_at(lambda handler: handler.command == "PUT" and "/versions/" in handler.path)
    attempt = trainer.start(through(long_run, faulty_server), **here)
    assert attempt.wait() == ExitCode.CREDENTIALS_EXPIRED, attempt.log
    failure = attempt.result.failure
    assert failure and failure.reason is Reason.CREDENTIALS_EXPIRED and "into the Secret" in failure.message
    begun = time.monotonic()
    again = trainer.start(through(long_run, faulty_server), **(here | {"LUTHIER_CREDENTIALS_WAIT_S": "600"}))
    assert again.wait() == ExitCode.CREDENTIALS_EXPIRED and time.monotonic() - begun < 100, "a new pod does not wait"
    session.renew()
    last = trainer.finish(through(long_run, faulty_server), **here)
    assert last.resumed_from == 24 and not last.steps
    assert ending(bench, "registry", bench.folder / "artifact").steps == 24


def test_a_pod_that_waits_for_new_keys_still_stops_when_it_is_asked_to(
    bench: Any, trainer: Trainer, long_run: dict[str, Any], faulty_server: Any, session: Session
) -> None:
    long_run["spec"]["hyperparameters"]["epochs"] = 2
    long_run = bench.prepared(long_run)
    session.expire_at(lambda handler: handler.command == "PUT" and "/versions/" in handler.path)
    attempt = trainer.start(through(long_run, faulty_server), **{CREDENTIALS_VARIABLE: str(session.folder)})
    wait_until(lambda: None if "again until then" in attempt.log else attempt.log, "the wait", 120, interval_s=0.1)
    attempt.signal(signal.SIGTERM)
    begun = time.monotonic()
    assert attempt.wait() == ExitCode.PREEMPTED and time.monotonic() - begun < 20, attempt.log
