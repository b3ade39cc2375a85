"""`make soak`: run it all, wait for rest, and say whether everything held. Arguments: --help."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from luthier_api.finetunejob import FineTuneJobSpec
from luthier_api.keys import run_hash
from luthier_dev.controlplane import ControlPlane
from luthier_dev.paths import REPOSITORY
from luthier_operator.model import names
from support.operator.fault_proxy import FaultProxy
from support.operator.operator_process import OperatorProcess, as_chart
from support.results import as_lines

from .node import Node, version_of
from .trouble import Trouble
from .users import Users
from .world import Api, World, condition, ended

NAMESPACE = "soak"
RESULTS = REPOSITORY / "benchmarks" / "results" / "soak.json"
# Readings of memory begin when what grows at the start, caches and pools, has grown.
WARM_UP_S = 120.0
MOST_PER_SECOND = 300
MOST_RECONCILES_PER_SECOND = 150
MOST_MIB_PER_HOUR = 20.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--resources", type=int, default=200)
    parser.add_argument("--actions-per-second", type=float, default=2.0)
    parser.add_argument("--trouble-every-s", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0, help="of what is done; when it happens differs all the same")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with ControlPlane() as cluster, tempfile.TemporaryDirectory(prefix="luthier-soak-") as folder:
        summary = asyncio.run(soak(cluster, Path(folder), arguments))
    arguments.results.write_text(as_lines(summary))
    print(json.dumps({key: value for key, value in summary.items() if key != "memory_mib"}, indent=2))
    return 0 if summary["held"] else 1


async def soak(cluster: ControlPlane, folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    cluster.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "crd/finetunejobs.luthier.dev")
    cluster.kubectl("create", "namespace", NAMESPACE)
    proxy = FaultProxy(cluster.kubeconfig, folder / "proxy")
    kubeconfig = proxy.kubeconfig(as_chart(cluster, folder, "luthier"), folder / "proxied", folder / "token")
    operator = OperatorProcess(kubeconfig, folder, LUTHIER_AUDIT_INTERVAL_S="60")
    operator.start()
    chance = random.Random(arguments.seed)
    api = Api(cluster.kubeconfig)
    world = World(api, NAMESPACE)
    node = Node(world, random.Random(arguments.seed + 1), slowest_s=20.0)
    world.on_pod = node.see
    users = Users(world, chance, most=arguments.resources, rate=arguments.actions_per_second)
    trouble = Trouble(proxy, operator, cluster, random.Random(arguments.seed + 2), arguments.trouble_every_s)
    traffic, health = Traffic(proxy), Health(operator)
    memory: list[tuple[float, float]] = []
    begun = time.monotonic()
    half_s = arguments.minutes * 30
    seeing = asyncio.create_task(world.see())
    keeping = asyncio.create_task(trouble.keep_alive())
    acting = [asyncio.create_task(users.act()), asyncio.create_task(trouble.make())]
    try:
        while (at := time.monotonic() - begun) < 2 * half_s:
            await asyncio.sleep(5)
            for task in (seeing, keeping, *acting):
                if task.done():
                    task.result()
            traffic.count()
            await asyncio.to_thread(health.look)
            trouble.kills_allowed = at < half_s  # the second half is for memory
            rss = trouble.rss_mib()
            if rss and at > half_s + min(WARM_UP_S, half_s / 3):
                memory.append((round(at, 1), round(rss, 2)))
            if int(at) % 60 < 5:
                print(f"{at / 60:4.0f} min: {len(world.finetunejobs)} resources, {rss or 0:.0f} MiB", flush=True)
        for task in acting:
            task.cancel()
        await asyncio.gather(*acting, return_exceptions=True)
        proxy.heal()
        proxy.after_write = None
        await users.resume_all()
        ended_at = time.monotonic()
        left = await _rest(world, timeout_s=300)
        traffic.count()
        orphans = await _no_orphans(world, timeout_s=60)
    finally:
        for task in (*acting, keeping, seeing):
            task.cancel()
        await asyncio.gather(*acting, keeping, seeing, return_exceptions=True)
        operator.kill()
        await asyncio.to_thread(proxy.close)
        await api.close()
        if trouble.died or world.violations:
            (REPOSITORY / "benchmarks" / "results" / "soak.log").write_text(operator.log)
    slope = _slope(memory)
    held = {
        "never two live trainings of a resource or a run, and observedGeneration never back": not world.violations,
        "every resource ends settled as its spec asks": not left,
        "no Job without a living owner at the end": not orphans,
        "the operator never ended by itself": not trouble.died,
        "the operator never called itself ill": not health.ills,
        f"at most {MOST_RECONCILES_PER_SECOND} reconciles a second": health.busiest <= MOST_RECONCILES_PER_SECOND,
        f"at most {MOST_PER_SECOND} requests in any second": traffic.busiest <= MOST_PER_SECOND,
        f"memory grows by at most {MOST_MIB_PER_HOUR:.0f} MiB an hour": slope <= MOST_MIB_PER_HOUR,
    }
    return {
        "held": all(held.values()),
        "invariants": held,
        "minutes": arguments.minutes,
        "seed": arguments.seed,
        "resources": arguments.resources,
        "users_did": dict(sorted(users.did.items())),
        "trouble": dict(sorted(trouble.made.items())),
        "operator_starts": trouble.starts + 1,
        "kills_between_a_write_and_its_answer": trouble.kills_between_write_and_answer,
        "pods_ended": node.pods_ended,
        "events_seen": world.events,
        "requests": traffic.total,
        "writes": traffic.writes,
        "requests_in_the_busiest_second": traffic.busiest,
        "most_reconciles_per_second": round(health.busiest, 1),
        "ills": health.ills,
        "seconds_to_rest": round(time.monotonic() - ended_at, 1),
        "resources_at_the_end": _count(world),
        "not_settled": left,
        "orphans": orphans,
        "violations": world.violations,
        "memory_mib_per_hour": round(slope, 2),
        "memory_mib": memory,
    }


class Traffic:
    """Counts the operator's requests, and lets the proxy forget them."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        self.total = self.writes = self.busiest = 0

    def count(self) -> None:
        self.busiest = max(self.busiest, self._proxy.busiest_second())
        records, self._proxy.records = self._proxy.records, []
        self.total += len(records)
        self.writes += sum(record.write for record in records)


class Health:
    """What the operator says of itself: whether it is ill, and how much it does."""

    def __init__(self, operator: OperatorProcess) -> None:
        self._operator = operator
        self._last: tuple[int, float, float] = (0, 0.0, 0.0)
        self.ills: list[str] = []
        self.busiest = 0.0

    def look(self) -> None:
        if (ill := self._operator.ill) and ill not in self.ills:
            self.ills.append(ill)
            print(f"ILL: {ill}", flush=True)
        (pid, at, before), now = self._last, time.monotonic()
        count = self._operator.reconciles
        if count and pid == self._operator.pid:
            self.busiest = max(self.busiest, (count - before) / (now - at))
        self._last = (self._operator.pid if count else 0, now, count)


async def _rest(world: World, timeout_s: float) -> list[str]:
    """Wait until every resource is settled; return what is not."""
    deadline = time.monotonic() + timeout_s
    while (left := _unsettled(world)) and time.monotonic() < deadline:
        await asyncio.sleep(1)
    return left


async def _no_orphans(world: World, timeout_s: float) -> list[str]:
    """Wait for the garbage collector; return the Jobs that it left."""
    deadline = time.monotonic() + timeout_s
    while (orphans := world.orphans()) and time.monotonic() < deadline:
        await asyncio.sleep(1)
    return orphans


def _unsettled(world: World) -> list[str]:
    left = []
    for name, raw in world.finetunejobs.items():
        status, ready = raw.get("status", {}), condition(raw, "Ready")
        reason = f"{name}: {ready.get('reason')}: {ready.get('message')}"
        if status.get("observedGeneration") != raw["metadata"]["generation"]:
            left.append(f"{reason} (of an earlier generation)")
        elif ready.get("status") == "True":
            if status["artifact"]["version"] not in _versions(raw):
                left.append(f"{reason} (not the version of its spec)")
        elif raw["spec"].get("suspend"):
            # A run that has failed says so, suspended or not.
            rests = ready.get("reason") == "Suspended" or condition(raw, "Stalled").get("status") == "True"
            if not rests or _active(world, name):
                left.append(reason)
        elif condition(raw, "Stalled").get("status") != "True":
            left.append(reason)
    return left


def _versions(raw: dict[str, object]) -> set[str]:
    """Return what a resource may have published for its present spec, whichever retry it was."""
    metadata = raw["metadata"]
    assert isinstance(metadata, dict)
    spec = FineTuneJobSpec.model_validate(raw["spec"])
    runs = (names.run_name(metadata["name"], run_hash(spec, "", retry)) for retry in ("", "0", "1", "2"))
    return {version_of(run) for run in runs}


def _active(world: World, name: str) -> bool:
    jobs = (job for job in world.jobs.values() if job["metadata"]["labels"]["luthier.dev/finetunejob"] == name)
    return any(not ended(job) and not job["spec"].get("suspend") for job in jobs)


def _count(world: World) -> dict[str, int]:
    reasons = [str(condition(raw, "Ready").get("reason")) for raw in world.finetunejobs.values()]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}


def _slope(memory: Sequence[tuple[float, float]]) -> float:
    """Return the least-squares slope in MiB per hour."""
    if len(memory) < 2:
        return 0.0
    mean_at = sum(at for at, _ in memory) / len(memory)
    mean = sum(rss for _, rss in memory) / len(memory)
    spread = sum((at - mean_at) ** 2 for at, _ in memory)
    return sum((at - mean_at) * (rss - mean) for at, rss in memory) / spread * 3600


if __name__ == "__main__":
    sys.exit(main())
