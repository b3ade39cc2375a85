"""A world in a dict: the objects that plans apply, and what a node and Kubernetes' controllers would do with them.

No API server is imitated: there are no watches, versions or errors here. It exists so that plans can be carried out,
cut off after any action, and looked at.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from luthier_api.documents import Failure, Prepared, Published, Removal, Removed, Resolved, Result, RunDocument
from luthier_api.exitcodes import ExitCode, Retry, outcome_of
from luthier_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from luthier_api.reasons import Reason
from luthier_operator.gather.versions_in_use import matters
from luthier_operator.model import names
from luthier_operator.model.actions import Plan
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.merge_patch import merge_patch
from luthier_operator.model.ownership import join
from luthier_operator.model.parse import job_view, pod_view
from luthier_operator.model.resources import FineTuneJobResource
from luthier_operator.model.views import Meta, Refusal
from luthier_operator.plan.finetunejob.policies import plan_finetunejob
from luthier_operator.plan.finetunejob.situation import ObservedRuns

Raw = dict[str, Any]

DEFAULTS = Defaults(trainer_image="trainer:1", server_image="server:1")

SPEC: Raw = {
    "model": {"uri": "s3://models/base"},
    "dataset": {"train": {"uri": "s3://data/reviews.csv"}},
    "output": {"name": "sentiment", "uri": "s3://models/", "secretRef": {"name": "s3"}},
}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def spec(**changes: Any) -> FineTuneJobSpec:
    """A spec that says the least, with changes at its top level."""
    return FineTuneJobSpec.model_validate({**SPEC, **changes})


@dataclass
class World:
    """One FineTuneJob, its Jobs and pods, and the registry that its pods would see."""

    spec: FineTuneJobSpec = field(default_factory=spec)
    name: str = "reviews"
    uid: str = "uid-1"
    generation: int = 1
    retry: str = ""
    status: Raw = field(default_factory=dict)
    jobs: dict[str, Raw] = field(default_factory=dict)
    pods: dict[str, Raw] = field(default_factory=dict)
    services: dict[str, Raw] = field(default_factory=dict)
    made: int = 0
    registry: dict[str, str] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    trained: list[str] = field(default_factory=list)
    progress: Any = None
    silent_s: float = 0.0
    pod_events: dict[str, str] = field(default_factory=dict)
    refused: Refusal | None = None
    namespace_ending: bool = False
    deleting: bool = False
    finalizers: tuple[str, ...] = ()
    gone: bool = False
    in_use: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)
    patches: list[str] = field(default_factory=list)
    workloads: dict[str, Any] = field(default_factory=dict)
    defaults: Defaults = DEFAULTS

    # The operator

    def resource(self) -> FineTuneJobResource:
        meta = Meta(
            "FineTuneJob", "team", self.name, self.uid, self.generation, self.deleting, self.retry, self.finalizers
        )
        return FineTuneJobResource(meta, self.spec, FineTuneJobStatus.model_validate(self.status))

    def plan(self) -> Plan:
        jobs = [job_view(raw) for raw in self.jobs.values()]
        pods = [pod_view(raw) for raw in self.pods.values()]
        observed = ObservedRuns(
            join(self.uid, jobs, pods),
            self.progress,
            self.silent_s,
            self.pod_events,
            in_use=self.in_use if matters(self.resource()) else (),
            workloads=self.workloads,
            refused=self.refused,
            namespace_ending=self.namespace_ending,
        )
        return plan_finetunejob(self.resource(), observed, self.now, self.defaults)

    def step(self, cut: int | None = None) -> Plan:
        """Make a plan and carry it out, or only its first `cut` actions."""
        self.now += timedelta(seconds=1)
        plan = self.plan()
        actions: list[Callable[[], None]] = [
            *([self._hold] if plan.hold else []),
            *(lambda d=d: self._delete(d.name) for d in plan.deletes),
            *(lambda p=p: self._patch(p.name, p.merge) for p in plan.patches),
            *(lambda a=a: self._apply(a.manifest, a.once) for a in plan.applies),
        ]
        if plan.status is not None:
            actions.append(lambda: self._write(dict(plan.status or {})))
        actions += [lambda e=e: self.events.append(str(e.reason)) for e in plan.events]
        actions += [self._release] if plan.release else []
        for action in actions[:cut]:
            action()
        return plan

    def settle(self) -> None:
        """Let the operator and the garbage collector work until there is nothing left to do."""
        for _ in range(30):
            plan = self.step()
            if (self.collect() == 0 and plan.empty) or self.gone:
                return
        raise AssertionError(f"it does not converge: {plan}")

    def _hold(self) -> None:
        assert not self.deleting, "nothing new can hold a resource that is being deleted"
        self.finalizers += (names.FINALIZER,)

    def _release(self) -> None:
        self.finalizers = tuple(each for each in self.finalizers if each != names.FINALIZER)
        if self.deleting and not self.finalizers:
            self._go()

    def _apply(self, manifest: Raw, once: bool) -> None:
        assert once, "a FineTuneJob needs nothing but Jobs and a Service"
        name = manifest["metadata"]["name"]
        if manifest["kind"] == "Service":
            self.services.setdefault(name, manifest)
        elif name not in self.jobs:
            job = copy.deepcopy(manifest)
            self.made += 1
            job["metadata"] |= {"uid": f"uid-{self.made}", "creationTimestamp": stamp(self.now)}
            self.jobs[name] = job
            self._start(job)

    def _patch(self, name: str, merge: Any) -> None:
        if name in self.jobs:
            job, spec = self.jobs[name], merge.get("spec", {})
            self.patches.append(name)
            job["metadata"] = _merged(job["metadata"], merge.get("metadata", {}))
            job["spec"].update(spec)
            if spec.get("suspend"):
                self._drop_pods(name)
            if job["status"].get("failed", 0) > spec.get("backoffLimit", 1000):
                self.finish(job, "Failed", "BackoffLimitExceeded")
            self._start(self.jobs[name])

    def _delete(self, name: str) -> None:
        self.jobs[name]["metadata"].setdefault("deletionTimestamp", "2026-01-01T00:00:00Z")

    def _write(self, status: Raw) -> None:
        assert status.get("observedGeneration", 0) >= self.status.get("observedGeneration", 0)
        self.status = _merged(self.status, merge_patch(self.status, status))

    # The cluster

    def job(self, stage: str, *, live: bool = True) -> Raw | None:
        for job in self.jobs.values():
            ended = bool(job.get("status", {}).get("conditions"))
            if job["metadata"]["labels"]["app.kubernetes.io/component"] == stage and not (live and ended):
                return job
        return None

    def collect(self) -> int:
        """Remove what is being deleted; return how many Jobs that were."""
        gone = [name for name, job in self.jobs.items() if "deletionTimestamp" in job["metadata"]]
        for name in gone:
            self.remove(name)
        return len(gone)

    def delete_resource(self) -> None:
        """kubectl delete: it goes at once, or waits for its finalizer."""
        self.deleting = True
        self.generation += 1
        if not self.finalizers:
            self._go()

    def _go(self) -> None:
        """The resource is gone, and the garbage collector takes along what it owns."""
        self.gone = True
        for name in [name for name, job in self.jobs.items() if "ownerReferences" in job["metadata"]]:
            self.remove(name)

    def remove(self, name: str) -> None:
        self._drop_pods(name)
        del self.jobs[name]

    def _start(self, job: Raw) -> None:
        """As the Job controller does: a Job has a time of its start while it may make pods."""
        status = job.setdefault("status", {})
        if job["spec"].get("suspend"):
            status.pop("startTime", None)
        else:
            status.setdefault("startTime", stamp(self.now))

    def _drop_pods(self, job: str) -> None:
        uid = self.jobs[job]["metadata"]["uid"]
        self.pods = {n: p for n, p in self.pods.items() if p["metadata"]["ownerReferences"][0]["uid"] != uid}

    def pods_of(self, job: Raw) -> list[Raw]:
        """The Job's pods, in the order of their making."""
        uid = job["metadata"]["uid"]
        return [pod for pod in self.pods.values() if pod["metadata"]["ownerReferences"][0]["uid"] == uid]

    def pod(self, job: Raw, *, index: int = 0, **status: Any) -> Raw:
        """Make the Job's next pod, with this status."""
        metadata = job["metadata"]
        self.made += 1
        name = f"{metadata['name']}-{self.made:04}"
        if status.get("phase") == "Running" and "containerStatuses" not in status:
            status["containerStatuses"] = [{"state": {"running": {"startedAt": stamp(self.now)}}}]
        self.pods[name] = {
            "metadata": {
                "name": name,
                "namespace": "team",
                "uid": f"uid-{name}",
                "labels": job["spec"]["template"]["metadata"]["labels"],
                "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
                "creationTimestamp": stamp(self.now),
                "ownerReferences": [{"uid": metadata["uid"], "controller": True}],
            },
            "spec": job["spec"]["template"]["spec"],
            "status": status,
        }
        return self.pods[name]

    def end(self, job: Raw, exit_code: int, message: str = "", *, reason: str = "", final: bool = True) -> None:
        """End the Job's pod so, and with `final` the Job, as the Job controller would."""
        first, *others = self.running(job)
        self.end_pod(first, exit_code, message, reason)
        for pod in others:
            # Whoever trained with the pod that failed is stopped.
            self.end_pod(pod, ExitCode.PREEMPTED if exit_code else 0, message if not exit_code else "")
        if exit_code and outcome_of(exit_code).retry is not Retry.FREE:
            job["status"]["failed"] = job["status"].get("failed", 0) + 1
        if final or others:
            self.finish(job, "Failed" if exit_code else "Complete")

    def finish(self, job: Raw, kind: str, reason: str = "PodFailurePolicy") -> None:
        """Give the Job its outcome."""
        why = reason if kind == "Failed" else ""
        job["status"]["conditions"] = [{"type": kind, "status": "True", "reason": why, "message": ""}]

    def running(self, job: Raw) -> list[Raw]:
        """The Job's running pods, as many as it wants."""
        found = [pod for pod in self.pods_of(job) if pod["status"].get("phase") == "Running"]
        missing = range(len(found), job["spec"].get("completions", 1))
        return found + [self.pod(job, index=index, phase="Running", podIP="198.18.0.9") for index in missing]

    def end_pod(self, pod: Raw, exit_code: int, message: str = "", reason: str = "", disruption: str = "") -> None:
        """End a running pod so, as its node would."""
        (container,) = pod["status"]["containerStatuses"]
        started = container["state"]["running"]["startedAt"]
        ended = {"exitCode": exit_code, "message": message, "reason": reason}
        times = {"startedAt": started, "finishedAt": stamp(self.now)}
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": disruption,
            "message": f"said {disruption}",
        }
        pod["status"] = {
            "phase": "Failed" if exit_code else "Succeeded",
            "containerStatuses": [{"state": {"terminated": {**ended, **times}}}],
            "conditions": [condition] if disruption else [],
        }

    def disrupt(self, stage: str, reason: str = "EvictionByEvictionAPI") -> None:
        """Evict a pod of a stage. Its Job makes another one, or fails, if its pods train together."""
        job = self.job(stage)
        assert job
        *others, evicted = self.running(job)
        self.end_pod(evicted, ExitCode.KILLED, reason="Error", disruption=reason)
        for pod in others:
            self.end_pod(pod, ExitCode.PREEMPTED)
        if others:
            self.finish(job, "Failed")

    def key(self) -> str:
        """The run key of the present spec, as prepare would find it."""
        return sha(f"run {self.spec.hyperparameters.learning_rate}")

    def prepare_ends(self, *warnings: str, weights_version: str | None = None) -> None:
        """Let prepare do its work: the version is found, or the data is prepared, and perhaps weights are found."""
        job = self.job("prepare")
        assert job
        key = sha(f"run {_rate(job)}")
        if key in self.registry:
            result = Result(published=_published(key, self.registry[key], reused=True))
        else:
            resolved = Resolved(
                run_key=key,
                data_key=sha("data"),
                model_digest=f"sha256:{sha('m')}",
                dataset_digest=f"sha256:{sha('d')}",
                weights_version=weights_version,
            )
            counts = {"train_examples": 9, "eval_examples": 1, "labels": 2}
            result = Result(prepared=Prepared(resolved=resolved, warnings=list(warnings), **counts))
        self.end(job, 0, result.to_termination_message())

    def train_ends(self, *, promotable: bool = True) -> None:
        """Let training publish its version."""
        job = self.job("train")
        assert job
        key = job["metadata"]["annotations"]["luthier.dev/run-key"]
        if key in self.registry:  # the trainer looks before it trains
            found = _published(key, self.registry[key], reused=True)
            return self.end(job, 0, Result(published=found).to_termination_message())
        self.trained.append(key)
        version = self.registry.setdefault(key, f"v{len(self.trained)}")
        self.end(job, 0, Result(published=_published(key, version, promotable=promotable)).to_termination_message())

    def removal_ends(self, stage: str) -> Removed:
        """Let the pod that takes versions out of storage do its work."""
        job = self.job(stage)
        assert job
        text = job["spec"]["template"]["metadata"]["annotations"]["luthier.dev/run-document"]
        removal = Removal.from_json(text)
        result = Removed()
        for key, version in list(self.registry.items()):
            if removal.versions is not None and version not in removal.versions:
                continue
            aliases = [alias for alias, named in self.aliases.items() if named == version]
            if aliases or version in removal.in_use:
                result.kept[version] = f"The alias {aliases[0]} points at it." if aliases else "It is served."
            else:
                del self.registry[key]
                result.removed.append(version)
        result.removed.extend(set(removal.versions or ()) - {*result.removed, *result.kept})
        self.end(job, 0, Result(removed=result).to_termination_message())
        return result

    def fails(self, stage: str, code: ExitCode = ExitCode.INVALID_DATA, message: str = "It is wrong.") -> None:
        """Let the pod of a stage fail for good, and say why."""
        job = self.job(stage)
        assert job
        failure = Failure(reason=Reason.INVALID_DATA, message=message)
        self.end(job, code, Result(failure=failure).to_termination_message())

    # The user

    def edit(self, **changes: Any) -> None:
        self.spec = FineTuneJobSpec.model_validate({**self.spec.to_wire(), **changes})
        self.generation += 1

    # What is seen

    def condition(self, type_: str) -> Raw | None:
        return next((c for c in self.status.get("conditions", []) if c["type"] == type_), None)

    @property
    def ready(self) -> Raw:
        condition = self.condition("Ready")
        assert condition
        return condition

    @property
    def live_trains(self) -> list[str]:
        """Train Jobs that have, or may get, a pod."""
        return [
            name
            for name, job in self.jobs.items()
            if name.endswith("-train") and not job.get("status", {}).get("conditions")
        ]


def _rate(job: Raw) -> str:
    text = job["spec"]["template"]["metadata"]["annotations"]["luthier.dev/run-document"]
    return str(RunDocument.from_json(text).spec.hyperparameters.learning_rate)


def _published(key: str, version: str, *, promotable: bool = True, reused: bool = False) -> Published:
    return Published(
        run_key=key,
        version=version,
        uri=f"s3://models/sentiment/versions/{version}",
        digest=f"sha256:{sha(version)}",
        size_bytes=1,
        metrics={"eval_f1_macro": "0.9", "eval_accuracy": "0.92", "test_f1_macro": "0.88"},
        promotable=promotable,
        message=None if promotable else "eval_f1_macro is 0.9, which is not GTE 0.95.",
        reused=reused,
    )


def _merged(old: Raw, patch: Raw) -> Raw:
    """Apply a JSON merge patch, as the API server does."""
    result = dict(old)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = _merged(result.get(key) or {}, value)
        else:
            result[key] = value
    return result


def stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def make_world() -> type[World]:
    return World


@pytest.fixture
def make_spec() -> Callable[..., FineTuneJobSpec]:
    return spec
