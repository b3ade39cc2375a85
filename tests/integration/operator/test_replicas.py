"""Two operators, one at work: who takes over and when, and that never two write."""

from __future__ import annotations

import itertools
import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.operator.fault_proxy import FaultProxy, Record

pytestmark = pytest.mark.integration

QUICK = {
    "LUTHIER_LEASE_DURATION_S": "3",
    "LUTHIER_LEASE_DEADLINE_S": "2",
    "LUTHIER_LEASE_RENEW_S": "0.3",
    "LUTHIER_LEASE_POLL_S": "0.1",
}
# Blocks the event loop on SIGUSR1, as code that does not await would, until SIGUSR2 comes.
BLOCKER = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
signal.signal(signal.SIGUSR1, lambda *_: signal.sigwait({signal.SIGUSR2}))
"""


class Replica:
    """An operator that reaches the API server through a proxy of its own, which records what it writes."""

    def __init__(self, proxy: FaultProxy, process: Any) -> None:
        self.proxy, self.process = proxy, process

    @property
    def leads(self) -> bool:
        return "luthier_leader 1.0" in self.process.get("/metrics")[0]

    def signal(self, number: signal.Signals) -> None:
        self.process._process.send_signal(number)

    def exit_code(self, timeout_s: float) -> int:
        return int(self.process._process.wait(timeout=timeout_s))

    @property
    def writes(self) -> list[Record]:
        """What it wrote, without its own Lease."""
        return [record for record in self.proxy.writes if record.plural != "leases"]

    @property
    def taking(self) -> Record:
        """The write by which it took the operator's Lease the last time; namespaces have Leases without such a time."""
        taken = [r for r in self.proxy.writes if r.plural == "leases" and r.status in (200, 201)]
        holds = [r for r in taken if "acquireTime" in r.body["spec"]]
        others = [r for r in holds if r.body["spec"]["acquireTime"] != holds[-1].body["spec"]["acquireTime"]]
        return holds[len(others)]


Make = Callable[..., list[Replica]]


@pytest.fixture
def replicas(
    cluster: Any, namespace: Any, tmp_path: Path, operator_process: Any, chart_kubeconfig: Any
) -> Iterator[Make]:
    """Make operators of one release, of which the first leads; a Lease that was given back is there already."""
    kubeconfig = chart_kubeconfig(cluster, tmp_path, namespace.name, f"watchNamespaces={{{namespace.name}}}")
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": namespace.name}}
    cluster.kubectl("apply", "-n", "default", "-f", "-", stdin=json.dumps({**lease, "spec": {"holderIdentity": ""}}))
    made: list[Replica] = []

    def make(count: int = 2, **settings: str) -> list[Replica]:
        for number in range(len(made), len(made) + count):
            folder = tmp_path / str(number)
            proxy = FaultProxy(cluster.kubeconfig, folder)
            process = operator_process(
                proxy.kubeconfig(kubeconfig, folder / "kubeconfig"),
                folder,
                LUTHIER_WATCH_NAMESPACES=namespace.name,
                LUTHIER_LEASE_NAME=namespace.name,
                LUTHIER_LEASE_NAMESPACE="default",
                LUTHIER_POD_NAME=f"luthier-{number}",
                **settings,
            )
            made.append(Replica(proxy, process))
            process.start()
            namespace.until("the first to lead", lambda: made[0].leads)
        return made

    yield make
    for replica in made:
        replica.process.kill()
        replica.proxy.close()
        print(replica.process.log)


def never_at_the_same_time(*turns: list[Record]) -> None:
    """Each turn wrote something, and all of it before the next turn's first."""
    assert all(turns), [len(turn) for turn in turns]
    for earlier, later in itertools.pairwise(turns):
        assert max(record.at for record in earlier) < min(record.at for record in later)


def test_the_one_that_stands_by_takes_over_from_a_stopped_and_from_a_killed_leader(
    replicas: Make, namespace: Any
) -> None:
    first, second = replicas()
    namespace.submit()
    namespace.await_pod("prepare")
    assert second.process.get("/readyz") == ("ok\n", None), "one that stands by is ready, or a rollout would not go on"
    assert not second.leads and second.writes == []

    begun = time.monotonic()
    assert first.process.stop() == 0
    namespace.until("the second to lead", lambda: second.leads, timeout_s=10)
    after_stop_s = second.taking.at - begun
    assert after_stop_s < 2.0

    namespace.prepare_ends()
    namespace.await_pod("train")
    turn_of_first, first_wrote = list(first.writes), len(first.writes)
    first.process.start()
    assert not first.leads

    begun = time.monotonic()
    turn_of_second = list(second.writes)
    second.process.kill()
    namespace.train_ends()
    namespace.await_reason("ftj", "reviews", "Published", timeout_s=30)
    after_kill_s = first.taking.at - begun
    assert after_kill_s < 15.0
    never_at_the_same_time(turn_of_first, turn_of_second, first.writes[first_wrote:])
    print(f"takeover after SIGTERM {after_stop_s:.2f} s, after SIGKILL {after_kill_s:.2f} s")


BROKEN = b'{"type":"ERROR","object":{"kind":"Status","code":500,"reason":"InternalError","message":"etcd is gone"}}'


@pytest.mark.parametrize("count", [1, 2])
def test_watches_that_begin_anew_keep_the_lease_and_go_on_within_seconds(
    replicas: Make, namespace: Any, count: int
) -> None:
    leader, *others = replicas(count)
    namespace.submit()
    namespace.await_pod("prepare")
    taken = leader.taking

    begun = time.monotonic()
    assert leader.proxy.send_to_watches(BROKEN) >= 4
    namespace.prepare_ends()
    namespace.await_pod("train")
    took_s = time.monotonic() - begun
    assert took_s < 5.0
    assert leader.process.watch_restarts == 1.0
    assert leader.leads and leader.taking is taken and not any(other.writes for other in others)
    print(f"{count} replicas: the next Job {took_s:.2f} s after the watches broke")


def test_a_leader_that_was_frozen_writes_nothing_when_it_thaws_and_ends(replicas: Make, namespace: Any) -> None:
    frozen, second = replicas(**QUICK)
    namespace.submit()
    namespace.await_pod("prepare")
    namespace.until("the status", lambda: namespace.ready_reason("ftj", "reviews"))
    turn = list(frozen.writes)
    frozen.signal(signal.SIGSTOP)
    # Something for both of them to do: each would now make the training Job.
    namespace.prepare_ends()
    namespace.await_pod("train")
    sent = len(frozen.proxy.records)
    frozen.signal(signal.SIGCONT)
    assert frozen.exit_code(timeout_s=5) == 1
    late = [r for r in frozen.proxy.records[sent:] if r.write]
    assert late == []
    assert frozen.process.log.count("Ending, so that only one operator works.") == 1
    never_at_the_same_time(turn, second.writes)


def test_a_leader_that_cannot_reach_the_api_server_ends_before_another_begins(replicas: Make, namespace: Any) -> None:
    lonely, second = replicas(**QUICK)
    namespace.submit()
    namespace.await_pod("prepare")
    lonely.proxy.fault(lambda record: True, times=10**6, silence_s=30)
    assert lonely.exit_code(timeout_s=10) == 1
    ended = time.monotonic()
    assert "was not renewed for 2 s" in lonely.process.log
    namespace.until("the second to lead", lambda: second.leads, timeout_s=10)
    assert second.taking.at > ended
    namespace.prepare_ends()
    namespace.await_pod("train")


def test_one_whose_event_loop_is_stuck_fails_its_liveness_probe_and_never_writes_again(
    replicas: Make, namespace: Any, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    stuck, second = replicas(**QUICK, PYTHONPATH=str(tmp_path))
    namespace.submit()
    namespace.await_pod("prepare")
    assert stuck.process.get("/healthz") == ("ok\n", None)
    stuck.signal(signal.SIGUSR1)
    assert "timed out" in (stuck.process.get("/healthz")[1] or "")
    namespace.prepare_ends()
    namespace.await_pod("train")
    sent = len(stuck.proxy.writes)
    stuck.signal(signal.SIGUSR2)
    assert stuck.exit_code(timeout_s=5) == 1
    assert stuck.proxy.writes[sent:] == []
    assert second.leads
