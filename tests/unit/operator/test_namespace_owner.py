"""One release works in a namespace; its reconciles ask for it together."""

from __future__ import annotations

import asyncio

import pytest

from luthier_operator.kube.errors import Transient, Unexpected
from luthier_operator.kube.namespace_owner import NamespaceOwner
from support.operator.leases import Leases

pytestmark = pytest.mark.unit


def test_a_namespace_belongs_to_the_release_that_renews_it_and_is_taken_when_it_no_longer_does() -> None:
    leases, now = Leases(), [0.0]
    first, second = (NamespaceOwner(leases, f"ns/{name}", lambda: now[0]) for name in ("a", "b"))  # type: ignore[arg-type]

    async def play() -> None:
        assert await first.other("team") is None and await second.other("team") == "ns/a"
        for _ in range(10):  # as long as the first works, whoever leads it
            now[0] += 60
            assert await first.other("team") is None and await second.other("team") == "ns/a"
        now[0] += 60
        assert await second.other("team") == "ns/a"
        now[0] += 90
        assert await second.other("team") is None, "the first was uninstalled"
        assert await first.other("team") == "ns/b"

    asyncio.run(play())


def test_a_release_without_the_right_to_leases_works_as_before() -> None:
    leases = Leases()
    leases.away = Unexpected("403 Forbidden")
    owner = NamespaceOwner(leases, "ns/a")  # type: ignore[arg-type]
    assert asyncio.run(owner.other("team")) is None
    nameless = NamespaceOwner(leases, "")  # type: ignore[arg-type]
    assert asyncio.run(nameless.other("team")) is None


async def asked(owner: NamespaceOwner, times: int) -> list[object]:
    return await asyncio.gather(*(owner.other("team") for _ in range(times)), return_exceptions=True)


async def test_reconciles_that_begin_together_in_a_new_namespace_claim_it_once() -> None:
    leases = Leases()
    owner = NamespaceOwner(leases, "ns/a")  # type: ignore[arg-type]
    assert await asked(owner, 16) == [None] * 16
    assert leases.requests == ["get", "create"]
    assert await asked(owner, 16) == [None] * 16
    assert len(leases.requests) == 2


async def test_a_namespace_of_another_release_is_asked_for_once_and_not_for_each_resource() -> None:
    leases, now = Leases(), [0.0]
    await NamespaceOwner(leases, "ns/b").other("team")  # type: ignore[arg-type]
    leases.requests.clear()
    owner = NamespaceOwner(leases, "ns/a", lambda: now[0])  # type: ignore[arg-type]
    assert await asked(owner, 16) == ["ns/b"] * 16
    assert await owner.other("team") == "ns/b"
    assert leases.requests == ["get"]
    now[0] += 6
    assert await owner.other("team") == "ns/b"
    assert leases.requests == ["get", "get"]


async def test_when_the_api_server_is_away_one_request_answers_all_that_asked_and_the_next_asks_anew() -> None:
    leases = Leases()
    leases.away = Transient("no answer")
    owner = NamespaceOwner(leases, "ns/a")  # type: ignore[arg-type]
    assert [type(answer) for answer in await asked(owner, 16)] == [Transient] * 16
    assert leases.requests == ["get"]
    leases.away = None
    assert await owner.other("team") is None


async def test_a_reconcile_that_is_cancelled_leaves_the_claim_to_the_others() -> None:
    leases = Leases()
    owner = NamespaceOwner(leases, "ns/a")  # type: ignore[arg-type]
    first, second = (asyncio.create_task(owner.other("team")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is None and leases.holder == "ns/a" and leases.requests == ["get", "create"]
