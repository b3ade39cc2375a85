"""Storage that is busy, slow, cut off or lying: a run ends with a right version, or with a reason."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from luthier_api.exitcodes import ExitCode
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
