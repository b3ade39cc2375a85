"""Each class of failure has its reason, and a message after which a stranger can act.

`make failures` writes the table of them to docs/failures.md.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from luthier_api.documents import Failure, Published, Result
from luthier_api.exitcodes import ExitCode, outcome_of
from luthier_dev.paths import REPOSITORY
from support.operator.operator_process import OperatorProcess, as_chart, finetunejob, prepared, published, sha

pytestmark = pytest.mark.integration

PAGE = REPOSITORY / "docs" / "failures.md"
WRITE = "LUTHIER_WRITE_FAILURES"
NODE = "node-of-failures"
EXAMPLE = "host-memory"
"""The case that the page shows in full."""


@dataclass(frozen=True)
class Case:
    """One way to fail, and how the node plays it."""

    name: str
    title: str
    reason: str
    """Of the condition Ready."""
    act: Callable[[Stage], None] = lambda stage: None
    spec: dict[str, Any] | None = None
    cause: str = ""
    """Reason of status.lastFailure, where the run is tried again."""
    retried: str = "no"


class Stage:
    """The hands of the node for one FineTuneJob of the namespace."""

    def __init__(self, namespace: Any, name: str) -> None:
        self.namespace, self.name = namespace, name

    def pods(self, stage: str) -> list[dict[str, Any]]:
        selector = f"luthier.dev/finetunejob={self.name},app.kubernetes.io/component={stage}"
        found = self.namespace.all("pods", selector)
        return [pod for pod in found if pod["status"]["phase"] not in ("Succeeded", "Failed")]

    def pod(self, stage: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []
        self.namespace.until(f"a pod of {self.name}", lambda: found.extend(self.pods(stage)) or found)
        return found[0]

    def train(self) -> dict[str, Any]:
        """Let prepare end well; return the pod that trains then."""
        self.namespace.end(self.pod("prepare"), 0, prepared())
        return self.pod("train")

    def says(self, code: ExitCode, message: str, stage: str = "prepare") -> None:
        """Let the pod end with a failure that it names itself, as the trainer does."""
        pod = self.train() if stage == "train" else self.pod(stage)
        failure = Failure(reason=outcome_of(code).reason, message=message)
        self.namespace.end(pod, int(code), Result(failure=failure).to_termination_message())

    def waits(self, reason: str, message: str) -> None:
        self.namespace.play(self.pod("prepare"), "Pending", {"waiting": {"reason": reason, "message": message}})

    def cannot_mount(self, message: str) -> None:
        """Give the pod to a node whose kubelet cannot mount a volume: only an Event of the pod tells of it."""
        pod = self.pod("prepare")
        name = pod["metadata"]["name"]
        binding = {"kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": NODE}}
        path = f"/api/v1/namespaces/{self.namespace.name}/pods/{name}/binding"
        self.namespace.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps({"apiVersion": "v1", **binding}))
        self.namespace.play(pod, "Pending", {"waiting": {"reason": "ContainerCreating"}})
        about = {"kind": "Pod", "namespace": self.namespace.name, "name": name, "uid": pod["metadata"]["uid"]}
        told = {"involvedObject": about, "type": "Warning", "reason": "FailedMount", "message": message}
        self.namespace.apply({"apiVersion": "v1", "kind": "Event", "metadata": {"name": f"{name}.mount"}, **told})

    def unschedulable(self, message: str) -> None:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        pod = self.pod("prepare")["metadata"]["name"]
        self.namespace.merge("pod", pod, {"status": {"conditions": [condition]}}, status=True)

    def disrupted(self, reason: str, message: str) -> None:
        condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
        times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}
        ended = {"terminated": {"exitCode": 137, "reason": "Error", **times}}
        self.namespace.play(self.train(), "Failed", ended, conditions=[condition])

    def misses_its_gate(self) -> None:
        document = Published(
            run_key=sha("a"), version="v1", uri="s3://models/sentiment/versions/v1", digest=f"sha256:{sha('v1')}",
            size_bytes=1, metrics={"eval_f1_macro": "0.81"}, promotable=False,
            message="eval_f1_macro is 0.81, which is not GTE 0.9.",
        )  # fmt: skip
        self.namespace.end(self.train(), 0, Result(published=document).to_termination_message())

    def may_not_delete(self) -> None:
        """Publish a version, and be deleted by who has the versions go too."""
        self.namespace.end(self.train(), 0, published())
        self.namespace.await_reason("ftj", self.name, "Published")
        self.namespace.kubectl("delete", "ftj", self.name, "--wait=false")
        message = (
            "The credentials may not delete s3://models/sentiment/versions/v1/manifest.json at "
            "https://s3.amazonaws.com; grant that, or check that the path is right."
        )
        self.says(ExitCode.STORAGE_DENIED, message, "remove")

    def runs_and_never_moves(self) -> None:
        """Run without ever finishing a step; Kubernetes then stops it as it is asked to."""
        running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        self.namespace.play(self.train(), "Running", running, podIP="127.0.0.1")


def says(code: ExitCode, message: str, stage: str = "prepare") -> Callable[[Stage], None]:
    return lambda of: of.says(code, message, stage)


def killed(of: Stage) -> None:
    of.namespace.end(of.train(), 137, reason="OOMKilled")


def crashed(of: Stage) -> None:
    of.namespace.end(of.train(), 1)


def prepares_only(of: Stage) -> None:
    of.namespace.end(of.pod("prepare"), 0, prepared())


ONCE = {"backoffLimit": 0}
COUNTED = "up to `backoffLimit` times"
ALWAYS = "always, and not counted"
HEALS = "goes on by itself"
CASES = (
    Case("bad-spec", "A value that only the trainer can judge", "InvalidSpec", says(
        ExitCode.INVALID_SPEC, "trainingArguments.optimm is not a field of TrainingArguments in transformers 5.23; did "
        "you mean optim?")),
    Case("bad-data", "The data does not fit", "InvalidData", says(
        ExitCode.INVALID_DATA, "reviews.csv has no column 'label'; it has 'text', 'stars'.")),
    Case("no-input", "A URI leads nowhere", "InputNotFound", says(
        ExitCode.INPUT_NOT_FOUND, "s3://data/reviews.csv does not exist; check the path.")),
    Case("bad-model", "The base model is incomplete", "InvalidModel", says(
        ExitCode.INVALID_MODEL, "s3://models/base holds no tokenizer.json; upload the whole model.")),
    Case("no-bucket", "There is no such bucket", "BucketNotFound", says(
        ExitCode.BUCKET_NOT_FOUND, "The bucket models does not exist; create it or correct output.uri.")),
    Case("storage-denied", "Storage denies", "StorageDenied", says(
        ExitCode.STORAGE_DENIED, "The keys in use may not write to s3://models/sentiment; check the Secret and its "
        "policy.")),
    Case("storage-unsafe", "Storage ignores conditions", "StorageUnsafe", says(
        ExitCode.STORAGE_UNSAFE, "The server behind s3://models ignores If-None-Match; use one that honours it.")),
    Case("storage-down", "Storage does not answer", "StorageUnavailable", says(
        ExitCode.STORAGE_UNAVAILABLE, "http://minio:9000 does not answer: connection refused. Check endpoint."), ONCE,
        retried=COUNTED),
    Case("keys-expired", "The keys have expired", "Retrying", says(
        ExitCode.CREDENTIALS_EXPIRED, "The keys used for s3://models/sentiment have expired (ExpiredToken); put new "
        "ones into the Secret.", "train"), cause="CredentialsExpired", retried=ALWAYS),
    Case("image", "The image cannot be pulled", "ImagePullFailed", lambda of: of.waits(
        "ErrImagePull", 'failed to resolve reference "registry.example.com/trainer:9": not found'),
        {"image": "registry.example.com/trainer:9"}, retried=HEALS),
    Case("forbidden-image", "The image is not on the operator's list", "ImageNotAllowed",
         spec={"image": "docker.io/somebody/trainer:1"}),
    Case("no-secret", "The Secret is missing", "MissingSecret", lambda of: of.cannot_mount(
        'MountVolume.SetUp failed for volume "credentials-output" : secret "s3" not found'), retried=HEALS),
    Case("no-key", "The Secret lacks a key", "MissingSecret", lambda of: of.cannot_mount(
        'MountVolume.SetUp failed for volume "credentials-output" : references non-existent secret key: '
        "AWS_ACCESS_KEY_ID"), retried=HEALS),
    Case("no-account", "The ServiceAccount is missing", "MissingServiceAccount", spec={"serviceAccountName": "trainer"},
         retried=HEALS),
    Case("no-authorities", "The ConfigMap is missing", "MissingConfigMap", lambda of: of.cannot_mount(
        'MountVolume.SetUp failed for volume "ca-output" : configmap "authorities" not found'),
        {"output": {**finetunejob()["spec"]["output"], "caBundle": {"name": "authorities"}}}, retried=HEALS),
    Case("no-claim", "The PersistentVolumeClaim is missing", "MissingVolumeClaim", lambda of: of.unschedulable(
        '0/3 nodes are available: persistentvolumeclaim "data" not found. not found'),
        {"dataset": {"train": {"uri": "pvc://data/reviews.csv"}}}, retried=HEALS),
    Case("no-room", "No node has room", "Unschedulable", lambda of: of.unschedulable(
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient memory. preemption: 0/3 nodes are "
        "available: 3 No preemption victims found for incoming pod."), retried=HEALS),
    Case("quota", "The namespace's quota is used up", "QuotaExceeded",
         spec={"prepareResources": {"requests": {"cpu": "64"}}}, retried=HEALS),
    Case("no-priority", "The cluster refuses the pod", "PodRefused", spec={"priorityClassName": "urgent"},
         retried=HEALS),
    Case("no-queue", "The queue is missing", "QueueNotFound", spec={"queueName": "gpus"}, retried=HEALS),
    Case("host-memory", "Out of memory", "OutOfMemory", killed),
    Case("gpu-memory", "Out of GPU memory", "GpuOutOfMemory", says(
        ExitCode.GPU_OUT_OF_MEMORY, "A step of 16 examples did not fit into 24 GiB, nor in halves. Set batchSize "
        "to auto, or lower maxLength, or set gradientCheckpointing.", "train")),
    Case("diverged", "The loss is not a number", "LossNotFinite", says(
        ExitCode.LOSS_NOT_FINITE, "The loss is nan at step 120. Lower learningRate, add warmup, or use precision bf16.",
        "train")),
    Case("export", "The model cannot be exported", "ExportFailed", says(
        ExitCode.EXPORT_FAILED, "The model cannot be written as ONNX. Leave onnx out of export, or use another model.",
        "train")),
    Case("crashed", "The pod crashed", "Crashed", crashed, ONCE, retried=COUNTED),
    Case("evicted", "The pod was evicted", "Retrying", lambda of: of.disrupted(
        "EvictionByEvictionAPI", "Eviction API: evicting"), cause="Evicted", retried=ALWAYS),
    Case("preempted", "The pod was preempted", "Retrying", lambda of: of.disrupted(
        "PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod"),
        cause="Preempted", retried=ALWAYS),
    Case("node-lost", "The node is gone", "Retrying", lambda of: of.disrupted(
        "DeletionByPodGC", "PodGC: node no longer exists"), cause="NodeLost", retried=ALWAYS),
    Case("deadline", "activeDeadlineSeconds is over", "DeadlineExceeded", prepares_only,
         {"activeDeadlineSeconds": 1}),
    Case("stuck", "No step was finished", "Retrying", Stage.runs_and_never_moves, {"progressDeadlineSeconds": 1},
         cause="Stuck", retried=COUNTED),
    Case("gate", "A gate was missed", "GateFailed", Stage.misses_its_gate),
    Case("removal", "The versions cannot be removed", "RemovalFailed", Stage.may_not_delete,
         {"deletionPolicy": "Delete"}, retried="every 10 minutes"),
)  # fmt: skip


@pytest.fixture
def listing_operator(cluster: Any, namespace: Any, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator with a list of images, in the test's namespace."""
    kubeconfig = as_chart(cluster, tmp_path, namespace.name, f"watchNamespaces={{{namespace.name}}}")
    settings = {"LUTHIER_WATCH_NAMESPACES": namespace.name, "LUTHIER_ALLOWED_IMAGES": "registry.example.com/"}
    process = OperatorProcess(kubeconfig, tmp_path, **settings)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        print(process.log)


@pytest.fixture
def node(cluster: Any) -> Iterator[None]:
    """For the pods that are given to one: those of a node that is not there are removed."""
    manifest = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    yield
    cluster.kubectl("delete", "node", NODE)


@pytest.mark.usefixtures("node")
def test_each_class_of_failure_has_its_reason_and_says_what_to_do(namespace: Any, listing_operator: Any) -> None:
    hard = {"requests.cpu": "40"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"}, "spec": {"hard": hard}}
    namespace.apply(quota)
    namespace.until("the quota to be counted", lambda: "used" in namespace.get("quota", "team").get("status", {}))
    items = [{**finetunejob(**(case.spec or {})), "metadata": {"name": case.name}} for case in CASES]
    namespace.apply({"apiVersion": "v1", "kind": "List", "items": items})
    for case in CASES:
        case.act(Stage(namespace, case.name))
    rows = []
    for case in CASES:
        namespace.until(f"{case.name}: {case.reason}", lambda case=case: is_so(namespace.get("ftj", case.name), case))
        resource = namespace.get("ftj", case.name)
        ready = next(c for c in resource["status"]["conditions"] if c["type"] == "Ready")
        assert ready["message"].count(" ") > 5 and ready["message"].rstrip().endswith(".")
        rows.append((case, ready["message"]))
    if os.environ.get(WRITE):
        PAGE.write_text(page(rows, described(namespace, EXAMPLE), namespace.name))


def is_so(resource: dict[str, Any], case: Case) -> bool:
    status = resource.get("status", {})
    ready = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {})
    cause = status.get("lastFailure", {}).get("reason")
    return ready.get("reason") == case.reason and (not case.cause or cause == case.cause)


def described(namespace: Any, name: str) -> str:
    """Return `kubectl describe` of one, without the metadata and the spec, which say nothing of the failure."""
    text = namespace.kubectl("describe", "ftj", name)
    kept = re.sub(r"(?ms)^(Metadata|Spec|Labels|Annotations):.*?(?=^\S)", "", text)
    return re.sub(r"[ \t]+$", "", kept, flags=re.M).strip()


def page(rows: list[tuple[Case, str]], example: str, namespace: str) -> str:
    """Return docs/failures.md: what each resource's condition Ready says, and one of them in full."""
    (title,) = (case.title for case, _ in rows if case.name == EXAMPLE)
    lines = [
        "<!-- Generated by `make failures`. Do not edit. -->",
        "",
        "# Every class of failure",
        "",
        "One FineTuneJob for each, on a real API server with the real operator; the test plays the node, which kills "
        "pods and pulls images. The message is that of the condition `Ready`.",
        "",
        "| What happened | Reason | Message | Tried again |",
        "| --- | --- | --- | --- |",
    ]
    for case, message in rows:
        said = " ".join(message.split()).replace("|", "\\|")
        lines.append(f"| {case.title} | `{case.cause or case.reason}` | {said} | {case.retried} |")
    lines += ["", f"One of them in full, as `kubectl describe` shows it without `Metadata` and `Spec`: {title}", ""]
    lines += ["```text", example, "```"]
    return "\n".join(lines).replace(namespace, "team-a") + "\n"
