"""Every trouble that an API server can make, in the middle of a run: no event's effect is lost, and nothing spins.

Each case is a life of its own with an operator and a fault proxy of its own. Trouble begins while the training runs,
and the training ends during it. The lives go side by side, once for the module; each test looks at one of them.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from luthier_dev.controlplane import ControlPlane
from support.operator.fault_proxy import GARBAGE, Fault, FaultProxy, Record
from support.operator.lives import Life, State, published_anew
from support.operator.operator_process import ForkedOperator, as_chart

pytestmark = pytest.mark.integration

AT_ONCE = 8
EXPIRED = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}'
BROKEN = b'{"type":"ERROR","object":{"kind":"Status","code":500,"reason":"InternalError","message":"etcd is gone"}}'
# The operator makes far fewer than these while a run begins; a loop without a pause makes hundreds.
MOST_PER_SECOND = 60
MOST_RECONCILES = 200
RETRY_AFTER_S = 4


@dataclass
class Case:
    """One life, and the trouble in it."""

    life: Life
    proxy: FaultProxy
    operator: ForkedOperator
    token_file: Path
    new_token: Callable[[], str]
    begun: float = 0.0
    fault: Fault | None = None
    last: State | None = None
    pid: int = 0
    busiest: int = 0
    ill: str | None = None
    reconciles: float = 0.0
    watch_restarts: float = 0.0

    def answers(self, status: int, times: int, to: Callable[[Record], bool] = lambda record: True, **more: Any) -> None:
        self.fault = self.proxy.fault(to, times=times, answer=status, **more)


Trouble = Callable[[Case], Awaitable[object]]


def _write(record: Record) -> bool:
    return record.write


def _watch(record: Record) -> bool:
    return record.watch


def _read(record: Record) -> bool:
    return not record.write and not record.watch


async def nothing(case: Case) -> None: ...


async def conflicts(case: Case) -> None:
    case.answers(409, 3, _write)


async def throttled(case: Case) -> None:
    await case.proxy.cut()
    case.answers(429, 12, headers={"Retry-After": str(RETRY_AFTER_S)})


async def internal_errors(case: Case) -> None:
    await case.proxy.cut()
    case.answers(500, 15)


async def unavailable(case: Case) -> None:
    await case.proxy.cut()
    case.answers(503, 15)


async def gateway_timeouts(case: Case) -> None:
    await case.proxy.cut()
    case.answers(504, 15)


async def a_page_of_html(case: Case) -> None:
    await case.proxy.cut()
    case.answers(200, 15, body=GARBAGE, content_type="text/html")


async def html_that_calls_itself_json(case: Case) -> None:
    await case.proxy.send(EXPIRED)
    case.answers(200, 10, body=GARBAGE)


async def expired_watches(case: Case) -> None:
    await case.proxy.send(EXPIRED)


async def expired_watches_by_http(case: Case) -> None:
    await case.proxy.cut()
    case.answers(410, 4, _watch)


async def an_unknown_error_in_a_watch(case: Case) -> None:
    await case.proxy.send(BROKEN)


async def garbage_in_a_watch(case: Case) -> None:
    await case.proxy.send(GARBAGE.encode())


async def watches_that_are_cut(case: Case) -> None:
    await case.proxy.cut()


async def watches_that_are_cut_in_a_line(case: Case) -> None:
    await case.proxy.cut(mid_line=True)


async def watches_that_end_at_once(case: Case) -> None:
    await case.proxy.cut()
    case.answers(200, 20, _watch, body="")


async def lists_that_are_cut(case: Case) -> None:
    case.fault = case.proxy.fault(_read, times=8, cut_after_bytes=40)
    await case.proxy.send(EXPIRED)


async def answers_that_are_lost(case: Case) -> None:
    case.fault = case.proxy.fault(_write, times=6, lose_answer=True)


async def answers_that_are_cut(case: Case) -> None:
    case.fault = case.proxy.fault(_write, times=6, cut_after_bytes=40)


async def slow_answers(case: Case) -> None:
    case.fault = case.proxy.fault(lambda record: not record.watch, times=8, delay_s=1)


async def ten_seconds_of_silence(case: Case) -> None:
    await case.proxy.cut()
    until = time.monotonic() + 10
    case.fault = case.proxy.fault(lambda record: record.at < until, times=100, silence_s=10)


async def a_gap_and_then_expiry(case: Case) -> None:
    """Events are lost, as when a watch is away for longer than the API server remembers."""
    case.proxy.deafen()
    case.life.held = set()
    await case.life.until("the end of the training", lambda state: not state.running("train"))
    await case.proxy.send(EXPIRED)


async def watches_that_have_gone_deaf(case: Case) -> None:
    """Events are lost and nothing ever says so."""
    case.proxy.deafen()


async def a_job_that_goes_unseen(case: Case) -> None:
    """The Job is deleted while nobody watches: a new list does not name what is missing from it."""
    case.proxy.deafen()
    jobs = (await case.life.look()).live("train")
    path = f"/apis/batch/v1/namespaces/{case.life.namespace}/jobs/{jobs[0]['metadata']['name']}"
    await case.proxy.request("DELETE", f"{path}?propagationPolicy=Background")
    gone = jobs[0]["metadata"]["uid"]
    await case.life.until("its end", lambda state: gone not in [job["metadata"]["uid"] for job in state.jobs])
    await case.proxy.send(EXPIRED)


async def an_expired_token(case: Case) -> None:
    """The token is refused until it is rotated, as a pod's is."""
    old = case.token_file.read_text()
    case.answers(401, 10**6, lambda record: record.token == old)
    await case.proxy.cut()
    case.life.held = set()
    await case.life.until("a request that is refused", lambda _: case.fault and len(case.fault.seen) > 2)
    case.token_file.write_text(await asyncio.to_thread(case.new_token))


TROUBLES: list[Trouble] = [
    conflicts,
    throttled,
    internal_errors,
    unavailable,
    gateway_timeouts,
    a_page_of_html,
    html_that_calls_itself_json,
    expired_watches,
    expired_watches_by_http,
    an_unknown_error_in_a_watch,
    garbage_in_a_watch,
    watches_that_are_cut,
    watches_that_are_cut_in_a_line,
    watches_that_end_at_once,
    lists_that_are_cut,
    answers_that_are_lost,
    answers_that_are_cut,
    slow_answers,
    ten_seconds_of_silence,
    a_gap_and_then_expiry,
    watches_that_have_gone_deaf,
    a_job_that_goes_unseen,
    an_expired_token,
]
_NAMES = [trouble.__name__ for trouble in TROUBLES]
# What kopf cannot live with, or does not notice: all watches begin anew. The others cost no restart.
RESTARTS = {
    "a_page_of_html",
    "html_that_calls_itself_json",
    "expired_watches_by_http",
    "an_unknown_error_in_a_watch",
    "garbage_in_a_watch",
    "watches_that_have_gone_deaf",
}
# kopf closes the session whose token is refused; a request that was about to be sent on it may fail in a way that ends
# kopf, which is a matter of milliseconds.
MAY_RESTART = {"an_expired_token"}


async def life_with(trouble: Trouble, case: Case) -> State:
    """A run that is in trouble from its training on; then an edit, which makes a second one."""
    life = case.life
    life.held = {"train"}
    await life.submit()
    await life.until("a training", lambda state: state.running("train"))
    case.begun = time.monotonic()
    await trouble(case)
    life.held = set()
    first = await life.rest("the first version", published_anew())
    await life.edit(hyperparameters={"epochs": 2})
    return await life.rest("the second version", published_anew(first.version))


@pytest.fixture(scope="module")
def cases(
    request: pytest.FixtureRequest, cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Case | Exception]]:
    """Live all lives that are looked at; {name of the trouble: what there was to see, or what went wrong}."""
    # The two that are looked at in tests of their own have no name in those tests.
    asked = {"throttled", "an_expired_token"} | {
        item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")
    }
    troubles = [nothing, *(each for each in TROUBLES if each.__name__ in asked)]
    kubeconfig = as_chart(cluster, tmp_path_factory.mktemp("access"), "luthier")

    def live(trouble: Trouble) -> Case | Exception:
        folder = tmp_path_factory.mktemp(trouble.__name__)
        proxy = FaultProxy(cluster.kubeconfig, folder)
        namespace = f"f-{secrets.token_hex(4)}"
        proxied = proxy.kubeconfig(kubeconfig, folder / "kubeconfig", folder / "token")
        # Often enough for a watch that has gone deaf; whatever else needs the audit does not wait for its turn.
        interval_s = "2" if trouble is watches_that_have_gone_deaf else "300"
        operator = ForkedOperator(
            proxied, folder, LUTHIER_WATCH_NAMESPACES=namespace, LUTHIER_AUDIT_INTERVAL_S=interval_s
        )
        new_token = lambda: cluster.kubectl("create", "token", "luthier", "--duration=3h").strip()  # noqa: E731
        case = Case(Life(proxy, namespace), proxy, operator, folder / "token", new_token)

        def watch_over() -> None:
            assert operator.alive, "the operator ended by itself"

        case.life.tick = watch_over
        try:
            proxy.call(proxy.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}}))
            operator.start(wait=False)
            case.last = proxy.call(life_with(trouble, case), timeout_s=280)
            case.ill, case.reconciles = operator.ill, operator.reconciles
            case.watch_restarts = operator.watch_restarts
            case.busiest = proxy.busiest_second(since=case.begun)
            return case
        except Exception as error:
            print(f"--- {trouble.__name__}\n{operator.log[-8000:]}")
            return error
        finally:
            operator.kill()
            proxy.call(proxy.request("DELETE", f"/api/v1/namespaces/{namespace}"))
            proxy.close()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield dict(zip((each.__name__ for each in troubles), pool.map(live, troubles), strict=True))


def seen(cases: dict[str, Case | Exception], name: str) -> Case:
    case = cases[name]
    if isinstance(case, Exception):
        raise case
    return case


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", _NAMES)
def test_a_life_in_trouble_ends_as_the_undisturbed_one_and_asks_no_faster(
    cases: dict[str, Case | Exception], name: str
) -> None:
    undisturbed, case = seen(cases, "nothing"), seen(cases, name)
    assert undisturbed.last and case.last
    assert case.last.essence() == undisturbed.last.essence()
    assert case.busiest <= MOST_PER_SECOND
    assert case.ill is None
    assert 0 < case.reconciles <= MOST_RECONCILES
    if name not in MAY_RESTART:
        assert (case.watch_restarts > 0) == (name in RESTARTS), case.watch_restarts
    if case.fault:
        assert case.fault.seen, "the trouble never came"


def test_a_server_that_asks_to_be_left_alone_is(cases: dict[str, Case | Exception]) -> None:
    case = seen(cases, "throttled")
    assert case.fault
    refused = sorted(record.at for record in case.fault.seen)
    # What was on its way already, or still connects, may come a little later; then there is silence.
    waves = refused[:1]
    waves += [at for before, at in pairwise(refused) if at - before > RETRY_AFTER_S / 2]
    assert len(waves) >= 2
    assert all(later - earlier >= RETRY_AFTER_S - 0.1 for earlier, later in pairwise(waves)), refused


def test_a_rotated_token_is_used_by_watches_and_writes(cases: dict[str, Case | Exception]) -> None:
    case = seen(cases, "an_expired_token")
    new = case.token_file.read_text()
    later = [record for record in case.proxy.records if record.token == new]
    assert any(record.watch for record in later)
    assert any(record.write for record in later)
