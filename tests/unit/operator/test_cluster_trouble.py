"""The parts that keep to the API server's pace, say who asks, and compare with it, each alone."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from luthier_operator.kube import Access, ApiNotInstalled, Cluster, Pace, Transient, Unexpected, Watch, Watched
from luthier_operator.store.audit import Audit
from luthier_operator.store.store import Cache

pytestmark = pytest.mark.unit

JOBS = Watched("batch", "v1", "jobs")
NAME = ("n", "reviews-train")


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
    monkeypatch.setattr("luthier_operator.kube.access._AFTER_REFUSAL_S", 0.0)
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


class Deaf:
    """A watch that tells nothing."""

    watched, path, listed = JOBS, "/apis/batch/v1/jobs", True

    def __init__(self) -> None:
        self.expired = 0

    def expire(self) -> None:
        self.expired += 1


def audit_of(cache: Cache, cluster: Listed, watch: Deaf, interval_s: float = 3600.0) -> Audit:
    watches = [("Job", cast(Watch, watch))]
    return Audit(cast(Cluster, cluster), cache, watches, interval_s=interval_s, patience_s=0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "lists", "expired"),
    [
        pytest.param(7, [{NAME: 7}], 0, id="all is known"),
        pytest.param(7, [{NAME: 9}], 1, id="a change went unseen"),
        pytest.param(7, [{}], 1, id="an end went unseen"),
        pytest.param(101, [{}], 0, id="made after the list"),
        pytest.param(7, [{NAME: 7, ("n", "new"): 8}], 1, id="a beginning went unseen"),
        pytest.param(7, [{NAME: 7, ("n", "new"): 8}, {NAME: 7}], 0, id="it has gone again meanwhile"),
    ],
)
async def test_a_watch_that_has_missed_something_is_told_to_list_anew(
    known: int, lists: list[dict[tuple[str, str], int]], expired: int
) -> None:
    cache, watch = Cache(), Deaf()
    cache.wrote("Job", job(known))
    await audit_of(cache, Listed(*lists), watch).compare("Job", cast(Watch, watch))
    assert watch.expired == expired


async def test_a_watch_that_catches_up_in_time_is_left_alone() -> None:
    cache, watch = Cache(), Deaf()

    class Late(Listed):
        async def list_versions(self, path: str, selector: str) -> tuple[int, dict[tuple[str, str], int]]:
            asyncio.get_running_loop().call_soon(cache.wrote, "Job", job(9))
            return await super().list_versions(path, selector)

    await audit_of(cache, Late({NAME: 9}), watch).compare("Job", cast(Watch, watch))
    assert not watch.expired


@pytest.mark.parametrize("failure", [Transient("503"), ApiNotInstalled("404"), Unexpected("403"), TypeError("a bug")])
async def test_a_comparison_that_fails_is_made_again(failure: Exception) -> None:
    cache, watch = Cache(), Deaf()
    cache.wrote("Job", job(7))
    running = asyncio.create_task(audit_of(cache, Listed(failure, {}), watch, interval_s=0.02).run())
    async with asyncio.timeout(5):
        while not watch.expired:
            await asyncio.sleep(0.01)
    running.cancel()
