"""An operator that is upgraded over resources in every phase leaves what runs alone, and writes what it must, once."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.operator.fault_proxy import FaultProxy
from support.operator.kuberay import install_kuberay

pytestmark = pytest.mark.integration

RECORDED = Path(__file__).parent / "upgrade" / "0.1.0"
KINDS = ("finetunejobs", "modeldeployments", "jobs", "pods", "rayservices")
TIME = re.compile(r'"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)Z"')
# The server's own, and what makes the Job controller act: here nobody but the operator does.
ASSIGNED = ("uid", "resourceVersion", "creationTimestamp", "generation", "selfLink", "finalizers", "managedFields")
JOB_LABELS = ("controller-uid", "batch.kubernetes.io/controller-uid", "job-name", "batch.kubernetes.io/job-name")
Raw = dict[str, Any]

# What 0.2.0 says that 0.1.0 did not: when a failure was and how long GPUs were held, counted from the pods that are
# still there; and sentences that are worded anew.
SENTENCE = {"conditions.Ready.message", "conditions.Stalled.message"}
NEW = {
    "failed": SENTENCE,
    "preparing": {"conditions.Ready.message", "conditions.Reconciling.message"},
    "suspended": {"conditions.Ready.message"},
    "gate-failed": SENTENCE,
    "retrying": {"usage.countedUntil", "usage.gpuSeconds", "lastFailure.at"},
}

# Their server has another shape now, and its pods have the Secret mounted, so KubeRay is given another Ray cluster to
# move to, once. The ModelDeployment in service says so, and that the old cluster answers until then.
MOVED = {"deploying", "serving"}

CHANGED = {"finetunejobs": set(NEW), "rayservices": MOVED, "modeldeployments": {"serving"}}
WRITES = Counter(
    {f"PATCH {kind}": len(phases) for kind, phases in CHANGED.items()}
    | {"PATCH poddisruptionbudgets": len(MOVED), "POST events": 1}
)


class Recording:
    """The objects of one namespace, made again in an API server with other uids and with times of today."""

    def __init__(self, path: Path) -> None:
        self.phase = path.stem
        text = path.read_text()
        ago = datetime.now(UTC) - datetime.strptime(json.loads(text)["recordedAt"], "%Y-%m-%dT%H:%M:%S%z")
        self._text = TIME.sub(lambda match: f'"{_later(match[1], ago)}"', text)

    @property
    def namespace(self) -> str:
        return str(self.objects("finetunejobs")[0]["metadata"]["namespace"])

    def objects(self, kind: str) -> list[Raw]:
        return list(json.loads(self._text)[kind])

    def to_create(self, kind: str) -> list[Raw]:
        return [_creatable(each) for each in self.objects(kind)]

    def made(self, kind: str, now: list[Raw]) -> None:
        """Have everything name the uids that objects were given."""
        given = {each["metadata"]["name"]: each["metadata"]["uid"] for each in now}
        for each in self.objects(kind):
            self._text = self._text.replace(each["metadata"]["uid"], given[each["metadata"]["name"]])


def _later(time: str, by: timedelta) -> str:
    return (datetime.fromisoformat(time) + by).strftime("%Y-%m-%dT%H:%M:%SZ")


def _creatable(recorded: Raw) -> Raw:
    raw = {key: value for key, value in recorded.items() if key != "status"}
    raw["metadata"] = {key: value for key, value in raw["metadata"].items() if key not in ASSIGNED}
    if raw["kind"] == "FineTuneJob":
        assert recorded["metadata"]["generation"] <= 2
        raw["metadata"]["edited"] = recorded["metadata"]["generation"] == 2
    if raw["kind"] == "Job":
        raw["spec"] = {**raw["spec"], "managedBy": "luthier.dev/played-by-a-test"}
        del raw["spec"]["selector"]
        for metadata in (raw["metadata"], raw["spec"]["template"]["metadata"]):
            metadata["labels"] = {key: value for key, value in metadata["labels"].items() if key not in JOB_LABELS}
    return raw


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, object]]:
    """Everything in a status with where it is; a condition is where its type is."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{path}.{inner.get('type', number)}")
    else:
        yield path, value


def _before_its_edit(raw: Raw) -> Raw:
    """Another spec, so that the recorded one becomes the second generation."""
    return {**raw, "spec": {**raw["spec"], "backoffLimit": 1}}


class World:
    """All recordings in one API server."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.recordings = [Recording(path) for path in sorted(RECORDED.glob("*.json"))]
        self.namespaces = [each.namespace for each in self.recordings]

    def load(self) -> None:
        names = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": each}} for each in self.namespaces]
        self._send(names, "create")
        for kind in KINDS:
            create = [raw for each in self.recordings for raw in each.to_create(kind)]
            edited = [raw for raw in create if raw["kind"] == "FineTuneJob" and raw["metadata"].pop("edited")]
            self._send([_before_its_edit(raw) if raw in edited else raw for raw in create], "create")
            self._send(edited, "replace")
            for each, now in zip(self.recordings, self.now(kind), strict=True):
                each.made(kind, now)
        told = []
        for kind in KINDS:
            for each, now in zip(self.recordings, self.now(kind), strict=True):
                statuses = {raw["metadata"]["name"]: raw.get("status") for raw in each.objects(kind)}
                told += [{**raw, "status": status} for raw in now if (status := statuses[raw["metadata"]["name"]])]
        self._send(told, "replace", "--subresource=status")

    def remove(self) -> None:
        self._cluster.kubectl("delete", "namespace", "--wait=false", *self.namespaces)

    def now(self, kind: str) -> list[list[Raw]]:
        """The objects of a kind as they are now, for each recording."""
        items = json.loads(self._cluster.kubectl("get", kind, "-A", "-o", "json"))["items"]
        return [[raw for raw in items if raw["metadata"]["namespace"] == name] for name in self.namespaces]

    def versions(self) -> dict[str, str]:
        """{phase kind name uid: resourceVersion} of everything."""
        return {
            f"{each.phase} {kind} {raw['metadata']['name']} {raw['metadata']['uid']}": raw["metadata"][
                "resourceVersion"
            ]
            for kind in KINDS
            for each, now in zip(self.recordings, self.now(kind), strict=True)
            for raw in now
        }

    def changes(self, was: list[list[Raw]]) -> dict[str, set[str]]:
        """{phase: what its FineTuneJob's status says now that it did not say before}, without what has not changed."""
        changes = {}
        for each, (old,), (new,) in zip(self.recordings, was, self.now("finetunejobs"), strict=True):
            then, now = dict(_leaves(old["status"])), dict(_leaves(new["status"]))
            changes[each.phase] = {path for path in then.keys() | now.keys() if then.get(path) != now.get(path)}
        return {phase: paths for phase, paths in changes.items() if paths}

    def available(self) -> dict[str, str]:
        """{phase: what the condition Available says}, where it is true."""
        return {
            each.phase: condition["message"]
            for each, now in zip(self.recordings, self.now("modeldeployments"), strict=True)
            for raw in now
            for condition in raw.get("status", {}).get("conditions", [])
            if condition["type"] == "Available" and condition["status"] == "True"
        }

    def _send(self, objects: list[Raw], *verb: str) -> None:
        if objects:
            document = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
            self._cluster.kubectl(*verb, "-f", "-", stdin=document)


@pytest.fixture
def world(cluster: Any) -> Iterator[World]:
    install_kuberay(cluster)
    world = World(cluster)
    world.load()
    yield world
    world.remove()


def test_an_upgrade_from_0_1_0_restarts_no_run_and_writes_nothing_that_is_not_new(
    world: World, cluster: Any, namespace: Any, tmp_path: Path, operator_process: Any, chart_kubeconfig: Any
) -> None:
    watched = ",".join(world.namespaces)
    kubeconfig = chart_kubeconfig(cluster, tmp_path, namespace.name, f"watchNamespaces={{{watched}}}")
    before, was = world.versions(), world.now("finetunejobs")
    proxy = FaultProxy(cluster.kubeconfig, tmp_path / "proxy")
    process = operator_process(
        proxy.kubeconfig(kubeconfig, tmp_path / "through-proxy"),
        tmp_path,
        LUTHIER_WATCH_NAMESPACES=watched,
        LUTHIER_LOG_LEVEL="DEBUG",
        LUTHIER_TRAINER_IMAGE="trainer:2",
        LUTHIER_SERVER_IMAGE="server:1",
    )
    try:
        process.start()
        for each in world.namespaces:
            namespace.until(f"{each} to rest", lambda each=each: f"nothing to do ({each}/reviews)" in process.log)
        # A FineTuneJob and a ModelDeployment have that line in common: wait for what the latter has to say.
        namespace.until("the server in service to be moved", lambda: len(proxy.writes) >= WRITES.total())
        written = [f"{record.method} {record.plural}" for record in proxy.writes]
    finally:
        process.kill()
        proxy.close()
        print(process.log)
    after = world.versions()
    assert before.keys() == after.keys(), "a child was made or deleted"
    changed = {name for name, version in before.items() if after[name] != version}
    assert changed == {name for name in before if name.split()[0] in CHANGED.get(name.split()[1], ())}
    assert world.changes(was) == NEW
    assert Counter(written) == WRITES, "each only once"
    assert world.available() == {"serving": "Version v1 answers requests."}
