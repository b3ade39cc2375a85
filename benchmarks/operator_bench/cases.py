"""What is measured. Each case has a cluster of its own and returns its samples as plain values.

life       from creation to the version, every pod succeeds; R2 watches beside us, so it is told the very same.
           Then a restart with all Jobs and pods still there, and one after the Jobs' time to live
tutorial   the same life and restart for R1
settled    a restart over copies of one that has lived
cold       the resources are there before the operator: until every prepare Job exists
rate       creations at an even pace; how long until the Job, until the status says what a pod's change means, and until
           R2 beside us is told of the resource. The pods then run on
lives      the same at a pace of its own, and the pods end: whole lives
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.operator_bench.contenders import FLOOR, TUTORIAL, US, Contender, log_folder
from benchmarks.operator_bench.load import JOBS, PODS, RESOURCES, Client, Watches, each, finetunejob, paced
from benchmarks.operator_bench.plant import NAMESPACE, Plant, Write, tally
from benchmarks.operator_bench.stages import Profile
from luthier_api.reasons import Reason
from luthier_dev.waiting import wait_until

Sample = dict[str, Any]
_SETTLES_S = 600.0


@dataclass
class Options:
    """What may be set on the command line."""

    per_second: float = 20.0
    seconds: float = 300.0
    lives_per_second: float = 5.0
    lives_seconds: float = 120.0
    train_s: float = 120.0
    """How long a training takes in `life` and `tutorial`."""
    timeout_s: float = 3600.0
    settings: dict[str, str] = field(default_factory=dict)
    """Environment of our operator."""


async def life(n: int, options: Options) -> list[Sample]:
    """Creation to version for us, beside the floor; then two restarts."""
    with Plant([US, FLOOR], "runs", options.train_s) as plant:
        us, floor = _contenders(plant, options, US, FLOOR)
        samples = await _lives(plant, [us, floor], n, options, lambda status: bool(status.get("artifact")))
        floor.stop()
        us.stop()
        for state in ("jobs and pods still there", "jobs gone"):
            if state == "jobs gone":
                plant.control_plane.kubectl(
                    *("-n", NAMESPACE, "delete", "jobs", "--all", "--wait=false"), timeout_s=options.timeout_s
                )
                await _until_none(plant, options)
            for contender in (us, floor):
                samples.append({"case": f"restart, {state}", **_restart(plant, contender, n, options)})
        return samples


async def settled(n: int, options: Options) -> list[Sample]:
    """One life, of which all others are copies, spec and status; then a restart."""
    with Plant([US, FLOOR], "runs") as plant:
        us, floor = _contenders(plant, options, US, FLOOR)
        await _lives(plant, [us], 1, options, lambda status: bool(status.get("artifact")))
        us.stop()
        async with Client(plant) as client:
            first, *others = _names(n)
            (lived,) = (await client.list(RESOURCES))["items"]
            text = json.dumps(lived["status"])

            async def copy(name: str) -> None:
                await client.create({**lived, "metadata": {"name": name}})
                status = json.loads(text.replace(f'"{first}-', f'"{name}-'))
                await client.patch_status(f"{RESOURCES}/{name}/status", status)

            await each(others, copy)
        return [{"case": "restart, settled long ago", **_restart(plant, one, n, options)} for one in (us, floor)]


async def tutorial(n: int, options: Options) -> list[Sample]:
    """The same life for R1, and its restart."""
    with Plant([TUTORIAL], "runs", options.train_s) as plant:
        (peer,) = _contenders(plant, options, TUTORIAL)
        samples = await _lives(plant, [peer], n, options, lambda status: status.get("phase") == "Succeeded")
        peer.stop()
        return [*samples, {"case": "restart, jobs and pods still there", **_restart(plant, peer, n, options)}]


async def cold(n: int, options: Options) -> list[Sample]:
    """The resources exist before the operator; nothing becomes of the pods."""
    with Plant([US, FLOOR], None) as plant:
        us, floor = _contenders(plant, options, US, FLOOR)
        made: set[str] = set()

        def seen(kind: str, job: dict[str, Any], now: float) -> None:
            made.add(job["metadata"]["name"])

        async with Client(plant) as client, Watches(client) as watches:
            await client.create_all(_names(n))
            watches.start(JOBS, seen)
            us.start()
            floor.start()
            await watches.until(
                lambda: len(made) >= n, f"{n} Jobs", options.timeout_s, lambda: f"{len(made)} of {n} Jobs"
            )
            reached_s, cpu_s = us.age_s, us.cpu_s
        samples: list[Sample] = [{"case": "cold", **_used(us, n, cpu_s), "wall_s": round(reached_s, 1)}]
        samples[0]["settled_cpu_s"] = round(us.wait_until_quiet(options.timeout_s), 2)
        samples[0]["writes"] = tally(plant.writes(US))
        samples.append({"case": "cold", **_used(floor, n, floor.wait_until_quiet(options.timeout_s))})
        us.stop()
        floor.stop()
        return samples


async def rate(n: int, options: Options) -> list[Sample]:
    """Creations at an even pace, of pods that run on. `n` follows from the pace and its length."""
    return [await _paced("rate", n, options.seconds, "pulled", options)]


async def lives(n: int, options: Options) -> list[Sample]:
    """Creations at an even pace, of pods that end. `n` follows from the pace and its length."""
    return [await _paced("lives", n, options.lives_seconds, "troubled", options)]


async def _paced(case: str, count: int, seconds: float, profile: Profile, options: Options) -> Sample:
    per_second = count / seconds
    applied: dict[str, float] = {}
    answered: dict[str, float] = {}
    jobs: dict[str, float] = {}
    pulls: dict[str, float] = {}
    told: dict[str, float] = {}
    ended: dict[str, float] = {}
    trained: dict[str, float] = {}
    running: set[str] = set()
    published: set[str] = set()

    def job_seen(kind: str, job: dict[str, Any], now: float) -> None:
        labels = job["metadata"]["labels"]
        name = labels.get("luthier.dev/finetunejob", "")
        if labels["app.kubernetes.io/component"] == "prepare":
            jobs.setdefault(name, now)
            conditions = job.get("status", {}).get("conditions", [])
            if any(each["type"] == "Complete" and each["status"] == "True" for each in conditions):
                ended.setdefault(name, now)

    def pod_seen(kind: str, pod: dict[str, Any], now: float) -> None:
        labels = pod["metadata"]["labels"]
        states = [each["state"] for each in pod["status"].get("containerStatuses", [])]
        waiting = {state.get("waiting", {}).get("reason") for state in states}
        if labels["app.kubernetes.io/component"] == "prepare" and "ImagePullBackOff" in waiting:
            pulls.setdefault(labels["luthier.dev/finetunejob"], now)
        if pod["status"].get("phase") == "Running":
            running.add(labels["luthier.dev/finetunejob"])

    def resource_seen(kind: str, resource: dict[str, Any], now: float) -> None:
        name, status = resource["metadata"]["name"], resource.get("status", {})
        reasons = {each["reason"] for each in status.get("conditions", []) if each["type"] == "Ready"}
        if Reason.IMAGE_PULL_FAILED in reasons:
            told.setdefault(name, now)
        if status.get("currentRun", {}).get("stage") == "Train":
            trained.setdefault(name, now)
        if status.get("artifact"):
            published.add(name)

    def missing() -> int:
        return count - min(len(jobs), len(published) if profile == "troubled" else len(running))

    with Plant([US, FLOOR], profile) as plant, tempfile.TemporaryDirectory() as folder:
        floor_told = Path(folder) / "told"
        us, floor = _contenders(plant, options, US, FLOOR, FLOOR_TOLD=str(floor_told))
        for contender in (us, floor):
            contender.start()
            contender.wait_until_quiet(_SETTLES_S)
        before = us.cpu_s
        async with Client(plant) as client, Watches(client) as watches:
            for path, seen in ((JOBS, job_seen), (PODS, pod_seen), (RESOURCES, resource_seen)):
                watches.start(path, seen)

            async def apply(number: int) -> None:
                name = f"rate-{number:05d}"
                applied[name] = time.monotonic()
                await client.create(finetunejob(name))
                answered[name] = time.monotonic()

            await paced(count, per_second, apply)
            await watches.until(
                lambda: missing() == 0,
                "all of them",
                options.timeout_s,
                lambda: f"{len(jobs)} Jobs, {len(told)} told, {len(published)} published of {count}",
            )
        sample: Sample = {"case": case, **_used(us, count, us.cpu_s - before)}
        sample |= {"per_second": per_second, "seconds": seconds, "writes": tally(plant.writes(US))}
        sample["apply_to_answer_s"] = _between(applied, answered)
        sample["apply_to_job_s"] = _between(applied, jobs)
        # What lasted for two seconds and never came into the status counts as longer than that.
        sample["pod_to_status_s"] = _between(pulls, told) + [2.0] * (count - len(told))
        sample["job_end_to_status_s"] = _between(ended, trained)
        # How long it takes until kopf itself is told, in a process beside us.
        rows = [line.split() for line in floor_told.read_text().splitlines()]
        sample["apply_to_floor_s"] = _between(applied, {name: float(at) for name, at in rows if name in applied})
        us.stop()
        floor.stop()
        return sample


async def _lives(
    plant: Plant, contenders: list[Contender], n: int, options: Options, done: Callable[[dict[str, Any]], bool]
) -> list[Sample]:
    """Start all, make `n` resources, and wait until the first contender has brought all of them to their end."""
    finished: set[str] = set()
    changes: Counter[str] = Counter()

    def seen(kind: str, resource: dict[str, Any], now: float) -> None:
        changes[resource["metadata"]["name"]] += 1
        if done(resource.get("status", {})):
            finished.add(resource["metadata"]["name"])

    for contender in contenders:
        contender.start()
    idle = [contender.wait_until_quiet(_SETTLES_S) for contender in contenders]
    async with Client(plant) as client, Watches(client) as watches:
        watches.start(RESOURCES, seen)
        started = time.monotonic()
        await client.create_all(_names(n))
        await watches.until(
            lambda: len(finished) >= n, f"{n} lives", options.timeout_s, lambda: f"{len(finished)} of {n} ended"
        )
        wall_s = time.monotonic() - started
        samples = []
        for contender, before in zip(contenders, idle, strict=True):
            used = contender.wait_until_quiet(options.timeout_s) - before
            samples.append(
                {"case": "life", "train_s": options.train_s, **_used(contender, n, used), "wall_s": round(wall_s, 1)}
            )
        writes = plant.writes(contenders[0].name)
        samples[0]["writes"] = tally(writes)
        samples[0]["writes_to_each"] = _writes_to_each(writes)
        samples[0]["changes_of_each"] = _distribution(changes)
        return samples


def _restart(plant: Plant, contender: Contender, n: int, options: Options) -> Sample:
    """Start a contender over resources that are as they should be."""
    before = len(plant.writes(contender.name))
    contender.start()
    sample: Sample = {}
    if contender.name == US:

        def missing() -> str | None:
            done = contender.metric("luthier_reconciles_total")
            return None if done >= n else f"{done:.0f} of {n} reconciled"

        wait_until(missing, "every resource reconciled", options.timeout_s, interval_s=0.2)
        sample = {"synced_s": round(contender.age_s, 2), "synced_cpu_s": round(contender.cpu_s, 2)}
    used = contender.wait_until_quiet(options.timeout_s)
    sample = {**_used(contender, n, used), **sample, "writes": tally(plant.writes(contender.name)[before:])}
    contender.stop()
    return sample


async def _until_none(plant: Plant, options: Options) -> None:
    deadline = time.monotonic() + options.timeout_s
    async with Client(plant) as client:
        while any([(await client.list(f"{path}?limit=1"))["items"] for path in (JOBS, PODS)]):
            if time.monotonic() > deadline:
                raise TimeoutError("Jobs and pods are still there")
            await asyncio.sleep(1)


def _contenders(plant: Plant, options: Options, *names: str, **settings: str) -> list[Contender]:
    folder = log_folder(plant.control_plane.site.directory)
    return [Contender(name, plant.kubeconfig(name), folder, **options.settings, **settings) for name in names]


def _names(n: int) -> list[str]:
    return [f"job-{number:05d}" for number in range(n)]


def _used(contender: Contender, n: int, cpu_s: float) -> Sample:
    ours = {"reconciles": contender.metric("luthier_reconciles_total")} if contender.name == US else {}
    return {
        "contender": contender.name,
        "n": n,
        "cpu_s": round(cpu_s, 2),
        "cpu_ms_per_resource": round(1000 * cpu_s / n, 2),
        "rss_peak_mib": contender.rss_peak_mib,
        "rss_mib": contender.rss_mib,
        **ours,
    }


def _writes_to_each(writes: list[Write]) -> dict[str, int]:
    """Return {number of writes to a resource itself: how many resources had as many}."""
    own = [write for write in writes if write.resource.partition("/")[0] == "finetunejobs"]
    return _distribution(Counter(write.name for write in own))


def _distribution(counts: Counter[str]) -> dict[str, int]:
    return {str(count): number for count, number in sorted(Counter(counts.values()).items())}


def _between(start: dict[str, float], end: dict[str, float]) -> list[float]:
    """Return seconds from one to the other, of all that have both, in order of the start."""
    return [round(end[name] - start[name], 4) for name in sorted(start, key=start.__getitem__) if name in end]


CASES: dict[str, Callable[[int, Options], Coroutine[None, None, list[Sample]]]] = {
    "life": life,
    "cold": cold,
    "rate": rate,
    "lives": lives,
    "tutorial": tutorial,
    "settled": settled,
}
