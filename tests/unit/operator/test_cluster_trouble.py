"""The parts that keep to the API server's pace, read its watches and compare with it, each alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from luthier_operator.audit import Audit, Watched
from luthier_operator.cache import Cache
from luthier_operator.cluster import Access, Cluster, Pace, Transient
from luthier_operator.cluster.watches import _Events
from luthier_operator.observed import Key

pytestmark = pytest.mark.unit

EVENT = b'{"type":"ADDED","object":{}}\n'
JOBS = Watched("Job", "/apis/batch/v1/jobs", "")
KEY = Key("FineTuneJob", "n", "reviews")


async def wait_of(pace: Pace) -> float:
    begun = time.monotonic()
    await pace.turn()
    return time.monotonic() - begun


async def test_nobody_waits_while_nothing_is_wrong() -> None:
    assert await wait_of(Pace()) < 0.05


async def test_each_failure_makes_everybody_wait_longer_until_one_request_succeeds() -> None:
    pace = Pace()
    waits = []
    for _ in range(3):
        pace.failed()
        waits.append(await wait_of(pace))
    assert 0.05 < waits[0] < waits[1] < waits[2]
    pace.succeeded()
    pace.failed()
    assert await wait_of(pace) < waits[1]


async def test_failures_at_the_same_time_count_as_one() -> None:
    pace = Pace()
    for _ in range(100):
        pace.failed()
    assert await wait_of(pace) < 0.2


async def test_what_the_server_asks_for_holds_though_another_request_succeeds() -> None:
    pace = Pace()
    pace.failed(retry_after_s=0.5)
    pace.succeeded()
    assert await wait_of(pace) > 0.4


async def events_of(*chunks: bytes, status: int = 200) -> bytes:
    class Content:
        async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
            for chunk in chunks:
                yield chunk

    events = _Events(cast(Any, SimpleNamespace(content=Content(), status=status)), lambda: False, lambda: None)
    return b"".join([chunk async for chunk in events.iter_chunked(1024)])


async def test_events_pass_however_they_are_cut_into_chunks() -> None:
    assert await events_of(EVENT[:7], EVENT[7:] + EVENT) == EVENT + EVENT


async def test_half_a_line_at_the_end_of_a_watch_is_not_told() -> None:
    assert await events_of(EVENT, EVENT[:9]) == EVENT


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"ERROR","object":{"code":500}}\n',
        b'{"type":"ERROR","object":{"code":410}}\n',
        b"<html>\n",
        b'{"a":1}\n',
    ],
)
async def test_whatever_is_no_event_tells_kopf_to_list_anew(line: bytes) -> None:
    told = await events_of(EVENT + line + EVENT)
    assert told.endswith(b'to be listed again"}}\n')
    assert b'"code":410' in told


async def test_an_answer_410_is_told_as_an_event() -> None:
    assert b'"code":410' in await events_of(b'{"kind":"Status"}', status=410)


async def test_a_rotated_token_is_read_when_the_old_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "c", "user": {"tokenFile": str(token)}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr("luthier_operator.cluster.access._AFTER_REFUSAL_S", 0.0)
    access = await Access.from_environment()
    token.write_text("new")
    assert await access.authorization() == {"Authorization": "Bearer old"}
    await access.refused()
    assert await access.authorization() == {"Authorization": "Bearer new"}


class Listed:
    """A cluster in which there is only what is listed."""

    def __init__(self, *lists: dict[tuple[str, str], int] | Exception) -> None:
        self.lists = list(lists)

    async def list_versions(self, path: str, selector: str) -> tuple[int, dict[tuple[str, str], int]]:
        listed = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        if isinstance(listed, Exception):
            raise listed
        return 100, listed


def job(version: int, name: str = "reviews-train") -> dict[str, Any]:
    labels = {"luthier.dev/finetunejob": "reviews"}
    metadata = {"name": name, "namespace": "n", "uid": "u", "resourceVersion": str(version), "labels": labels}
    return {
        "kind": "Job",
        "metadata": {**metadata, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"template": {"spec": {"containers": [{"name": "main"}]}}},
    }


def audit_of(cache: Cache, cluster: Listed, woken: list[Key], expired: list[str], **more: float) -> Audit:
    settings = {"interval_s": 3600.0, "patience_s": 0.0, **more}
    return Audit(cast(Cluster, cluster), cache, [JOBS], woken.append, expired.append, **settings)


async def test_what_went_unseen_is_forgotten_and_acted_on() -> None:
    cache, woken = Cache(), list[Key]()
    cache.wrote("Job", job(7))
    await audit_of(cache, Listed({}), woken, []).forget_the_gone(JOBS)
    assert not cache.jobs(KEY)
    assert woken == [KEY]


async def test_what_was_made_after_the_list_is_kept() -> None:
    cache, woken = Cache(), list[Key]()
    cache.wrote("Job", job(101))
    await audit_of(cache, Listed({}), woken, []).forget_the_gone(JOBS)
    assert cache.jobs(KEY)
    assert not woken


@pytest.mark.parametrize(("listed", "deaf"), [(7, []), (9, [JOBS.path])])
async def test_a_watch_that_lags_behind_is_begun_anew(listed: int, deaf: list[str]) -> None:
    cache, expired = Cache(), list[str]()
    cache.wrote("Job", job(7))
    await audit_of(cache, Listed({("n", "reviews-train"): listed}), [], expired).compare(JOBS)
    assert expired == deaf


@pytest.mark.parametrize("failure", [Transient("503"), TypeError("a bug")])
async def test_a_comparison_that_fails_is_made_again(failure: Exception) -> None:
    cache, woken = Cache(), list[Key]()
    cache.wrote("Job", job(7))
    # A bug is not tried again at once.
    audit = audit_of(cache, Listed(failure, {}), woken, [], interval_s=0.1)
    audit.relisted(JOBS.path)
    running = asyncio.create_task(audit.run())
    async with asyncio.timeout(5):
        while not woken:
            await asyncio.sleep(0)
    running.cancel()
    assert not cache.jobs(KEY)
