"""Lives of one FineTuneJob, from its creation to rest: what its user does and how its pods end, by script.

A life runs in the loop of a fault proxy and looks at the API server past it, so that the operator may be killed and its
requests may fail at any point. What comes of a life is compared with what comes of the same life undisturbed.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from luthier_api.documents import Removed, Result
from luthier_api.exitcodes import ExitCode
from support.operator.fault_proxy import FaultProxy
from support.operator.operator_process import finetunejob, prepared, published

Raw = dict[str, Any]
NAME = "reviews"
RUN, COMPONENT = "luthier.dev/run", "app.kubernetes.io/component"
_LOOK_S = 0.15
_TIMES = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}
# What two lives that went the same way differ in.
_TIMED = ["creationTimestamp", "deletionTimestamp", "lastTransitionTime", "startedAt", "finishedAt", "chosenAt"]
_CHANCE = ["uid", "resourceVersion", "controller-uid", "batch.kubernetes.io/controller-uid", "pod", "usage"]
_CHANCE += ["luthier.dev/owner-uid"]
_OWN = frozenset([*_TIMED, *_CHANCE])


@dataclass
class State:
    """What there is in a life's namespace."""

    resource: Raw | None
    jobs: list[Raw]
    pods: list[Raw]

    @property
    def status(self) -> Raw:
        return dict((self.resource or {}).get("status") or {})

    @property
    def ready(self) -> str:
        return next((str(c["reason"]) for c in self.status.get("conditions", []) if c["type"] == "Ready"), "")

    @property
    def version(self) -> str:
        return str((self.status.get("artifact") or {}).get("version", ""))

    @property
    def observed(self) -> bool:
        return bool(self.resource) and self.status.get("observedGeneration") == self.resource["metadata"]["generation"]  # type: ignore[index]

    def live(self, component: str) -> list[Raw]:
        """Return the Jobs of a component that have not ended and are not going."""
        return [job for job in self.jobs if _component(job) == component and not _ended(job) and not _going(job)]

    def running(self, component: str) -> list[Raw]:
        pods = (pod for pod in self.pods if _component(pod) == component and not _going(pod))
        return [pod for pod in pods if pod["status"].get("phase") == "Running"]

    def said(self) -> str:
        """Return the state in a few words, for tables."""
        jobs = sorted(
            f"{job['metadata']['name'][-12:]} {_stage_of(job)}" for job in self.jobs if _component(job) != "none"
        )
        if self.resource is None:
            return "; ".join(["no resource", *jobs])
        run = self.status.get("currentRun") or {}
        words = [str(self.status.get("phase", "no status")), *([str(run["stage"])] if run else [])]
        words += ["held"] if self.resource["metadata"].get("finalizers") else []
        return "; ".join([" ".join(words), *jobs])

    def essence(self) -> Raw:
        """Return all that must be the same however a life was disturbed."""
        resource = self.resource and {
            "finalizers": self.resource["metadata"].get("finalizers", []),
            "generation": self.resource["metadata"]["generation"],
            "spec": self.resource["spec"],
            "status": _stripped(self.status),
        }
        jobs = {
            _name_of(job): {
                "labels": _stripped(job["metadata"]["labels"]),
                "annotations": _stripped(job["metadata"].get("annotations", {})),
                "suspend": job["spec"].get("suspend"),
                "ttl": job["spec"].get("ttlSecondsAfterFinished"),
                "state": _stage_of(job),
            }
            for job in self.jobs
        }
        return {"resource": resource, "jobs": jobs}


@dataclass
class Life:
    """A namespace with one FineTuneJob, seen and played past the proxy."""

    proxy: FaultProxy
    namespace: str
    tick: Callable[[], None] = lambda: None
    """Called at every look; starts the operator again when it was killed."""
    held: set[str] = field(default_factory=set)
    """Components whose pods run on and do not end."""
    exit_codes: list[int] = field(default_factory=list)
    """How the next training pods end; those after them end well."""
    exits_of_prepare: list[int] = field(default_factory=list)
    _played: set[str] = field(default_factory=set)
    _ended: set[str] = field(default_factory=set)

    # What a user does

    async def submit(self, **spec: Any) -> None:
        await self._user("POST", "", finetunejob(**spec))

    async def edit(self, **spec: Any) -> None:
        await self._user("PATCH", f"/{NAME}", {"spec": spec})

    async def delete(self) -> None:
        await self._user("DELETE", f"/{NAME}", {})

    async def until(self, what: str, condition: Callable[[State], object], timeout_s: float = 120) -> State:
        """Play the node until something is so."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.tick()
            state = await self.look()
            await self._play(state)
            if condition(state):
                return state
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.namespace}: never came to {what}: {state.said()}; Ready is {state.ready}")
            await asyncio.sleep(_LOOK_S)

    async def rest(self, what: str, condition: Callable[[State], object], quiet_s: float = 1.0) -> State:
        """Play the node until something is so and the operator has written nothing for a while."""

        def at_rest(state: State) -> bool:
            last = max((record.at for record in self.proxy.writes), default=0.0)
            return bool(condition(state)) and time.monotonic() - last > quiet_s

        return await self.until(what, at_rest)

    async def look(self) -> State:
        get = self.proxy.request
        core, batch, own = (
            f"/{root}/namespaces/{self.namespace}" for root in ("api/v1", "apis/batch/v1", "apis/luthier.dev/v1alpha1")
        )
        resource, jobs, pods = await asyncio.gather(
            get("GET", f"{own}/finetunejobs/{NAME}"), get("GET", f"{batch}/jobs"), get("GET", f"{core}/pods")
        )
        return State(resource[1] if resource[0] == 200 else None, jobs[1]["items"], pods[1]["items"])

    async def _user(self, method: str, path: str, body: Raw) -> None:
        base = f"/apis/luthier.dev/v1alpha1/namespaces/{self.namespace}/finetunejobs"
        status, answer = await self.proxy.request(method, base + path, body)
        assert status < 300, answer

    # The node

    async def _play(self, state: State) -> None:
        for pod in state.pods:
            uid, component = pod["metadata"]["uid"], _component(pod)
            if pod["status"].get("phase") == "Pending" and uid not in self._played:
                self._played.add(uid)
                await self._say(pod, "Running", {"running": {"startedAt": _TIMES["startedAt"]}})
            elif pod["status"].get("phase") == "Running" and component not in self.held and uid not in self._ended:
                self._ended.add(uid)
                await self._end(pod, component)

    async def _end(self, pod: Raw, component: str) -> None:
        run = pod["metadata"]["labels"].get(RUN, "")
        script = self.exits_of_prepare if component == "prepare" else self.exit_codes if component == "train" else []
        code = script.pop(0) if script else int(ExitCode.OK)
        result = {
            "prepare": lambda: prepared(run),
            "train": lambda: published(run, version_of(run)),
            "remove": lambda: Result(removed=Removed(removed=["v"])).to_termination_message(),
        }[component]()
        terminated = {"exitCode": code, "message": "" if code else result, "reason": "Completed", **_TIMES}
        await self._say(pod, "Failed" if code else "Succeeded", {"terminated": terminated})

    async def _say(self, pod: Raw, phase: str, state: Raw) -> None:
        container = {"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}/status"
        uid = {"uid": pod["metadata"]["uid"]}
        body = {"metadata": uid, "status": {"phase": phase, "containerStatuses": [container]}}
        status, answer = await self.proxy.request("PATCH", path, body)
        assert status in (200, 404, 409), answer


def version_of(run: str) -> str:
    """Return the version that a run of this name publishes."""
    return f"v-{hashlib.sha256(run.encode()).hexdigest()[:8]}"


def published_anew(*before: str) -> Callable[[State], object]:
    """Tell whether there is a version other than those before, and every Job that has ended has its time to live."""

    def so(state: State) -> bool:
        done = state.ready in ("Published", "Reused") and state.observed
        going = any(_going(job) for job in state.jobs)
        return done and state.version not in before and _all_expire(state) and not going

    return so


# The lives. Each returns its last state.


async def main_life(life: Life) -> State:
    """Submit, prepare, train, publish; edit; edit again while that trains, which replaces it."""
    await life.submit()
    first = await life.rest("the first version", published_anew())
    life.held = {"train"}
    await life.edit(hyperparameters={"epochs": 2})
    second = await life.until("the second training", lambda state: state.running("train") and state.observed)
    replaced = second.live("train")[0]["metadata"]["uid"]
    await life.edit(hyperparameters={"epochs": 4})
    # Only then may trainings end, or chance would decide whether the second one ends before it is replaced.
    await life.until("its end", lambda state: replaced not in [job["metadata"]["uid"] for job in state.jobs])
    life.held = set()
    return await life.rest("the version of the second edit", published_anew(first.version))


async def failing_life(life: Life) -> State:
    """A training fails once and is tried again; after an edit another fails for good."""
    life.exit_codes = [int(ExitCode.CRASHED)]
    await life.submit(backoffLimit=2)
    await life.rest("a version in spite of a crash", published_anew())
    life.exit_codes = [int(ExitCode.LOSS_NOT_FINITE)]
    await life.edit(hyperparameters={"learningRate": "0.5"})
    failed = lambda state: state.ready == "LossNotFinite" and state.observed and _all_expire(state)  # noqa: E731
    return await life.rest("the failure", failed)


async def suspended_life(life: Life) -> State:
    """Suspended while it trains, and resumed."""
    life.held = {"train"}
    await life.submit()
    await life.until("a training", lambda state: state.running("train"))
    await life.edit(suspend=True)
    await life.rest("rest", lambda state: state.ready == "Suspended" and not state.running("train"))
    life.held = set()
    await life.edit(suspend=False)
    return await life.rest("a version", published_anew())


async def deleted_life(life: Life) -> State:
    """Published, then deleted together with what it published."""
    await life.submit(deletionPolicy="Delete")
    await life.rest("a version", published_anew())
    await life.delete()
    return await life.rest("the end", lambda state: state.resource is None and not state.live("train"))


LIVES = {"main": main_life, "failing": failing_life, "suspended": suspended_life, "deleted": deleted_life}


def _all_expire(state: State) -> bool:
    """Tell whether every Job that has ended has its time to live, which is the last that is written of a run."""
    return all("ttlSecondsAfterFinished" in job["spec"] for job in state.jobs if _ended(job))


def _component(raw: Raw) -> str:
    return str(raw["metadata"].get("labels", {}).get(COMPONENT, "none"))


def _name_of(job: Raw) -> str:
    """Return what a Job is called in any life; the name of one that removes has the resource's uid in it."""
    return "remove" if _component(job) == "remove" else str(job["metadata"]["name"])


def _going(raw: Raw) -> bool:
    return "deletionTimestamp" in raw["metadata"]


def _ended(job: Raw) -> bool:
    return _stage_of(job) in ("complete", "failed")


def _stage_of(job: Raw) -> str:
    true = {c["type"] for c in job.get("status", {}).get("conditions") or [] if c["status"] == "True"}
    if _going(job):
        return "going"
    return next((kind.lower() for kind in ("Complete", "Failed", "Suspended") if kind in true), "live")


def _stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stripped(each) for key, each in value.items() if key not in _OWN}
    return [_stripped(each) for each in value] if isinstance(value, list) else value
