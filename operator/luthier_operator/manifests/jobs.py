"""The two Jobs of a run, and the run document that each is given.

The document lies in an annotation of the Job's own pod template and reaches the pod as a file by the downward API: one
object per stage, immutable with the Job and gone with it.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from luthier_api.documents import (
    GRACE_VARIABLE,
    RUN_DOCUMENT_PATH,
    TERMINATION_MESSAGE_PATH,
    TRAINER_PORT,
    Origin,
    Resolved,
    RunDocument,
)
from luthier_api.exitcodes import Retry, codes_with
from luthier_api.finetunejob import FineTuneJobSpec
from luthier_api.pods import Placement
from luthier_api.training import TrainingSpec
from luthier_operator.manifests import access, claims, model_cache, pods, rendezvous
from luthier_operator.manifests.access import Grant
from luthier_operator.model import names
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.names import Component, Stage
from luthier_operator.model.views import Meta

CONTAINER = names.CONTAINER
# The API server holds all annotations of an object to 256 KiB.
MAX_DOCUMENT_BYTES = 200 * 1024
_WORK = "/tmp"
_FILE = RUN_DOCUMENT_PATH.rpartition("/")[2]


class DocumentTooLarge(ValueError):
    """The spec does not fit into a run document. Its message is one sentence for people."""


def trainer_image(spec: FineTuneJobSpec, resolved: Resolved | None, defaults: Defaults) -> str:
    """Return the image of a run's pods.

    train runs on what prepare ran on: the image is in the run key, and the operator may be upgraded in between.
    """
    return spec.image or (resolved.image if resolved else None) or defaults.trainer_image


def grants(spec: FineTuneJobSpec) -> dict[str, Grant]:
    """Return {part of the spec: how it is reached}; what names no access of its own is reached like the output."""
    output = Grant("output", spec.output)
    hub = spec.model.uri.startswith("hf://")
    # Of a dataset that reads from both, the Secret needs the keys of S3.
    all_of_hub = all(file.uri.startswith(("hf://", "https://")) for file in spec.dataset.files())
    return {
        "output": output,
        "model": output if spec.model.is_unset() and not hub else Grant("model", spec.model, hub),
        "dataset": output if spec.dataset.is_unset() else Grant("dataset", spec.dataset, all_of_hub),
    }


def run_document(
    owner: Meta, spec: FineTuneJobSpec, run: str, resolved: Resolved | None, defaults: Defaults
) -> RunDocument:
    """Return the document of a pod of this run."""
    granted = grants(spec)
    return RunDocument(
        spec=TrainingSpec.model_validate(spec.to_wire()),
        output_access=granted["output"].access,
        model_access=granted["model"].access,
        dataset_access=granted["dataset"].access,
        image=trainer_image(spec, resolved, defaults),
        origin=Origin(name=owner.name, namespace=owner.namespace, uid=owner.uid, generation=owner.generation, run=run),
        resolved=resolved,
    )


def job(
    owner: Meta,
    spec: FineTuneJobSpec,
    *,
    stage: Stage,
    run: str,
    spec_hash: str,
    resolved: Resolved | None,
    defaults: Defaults,
    failures: int = 0,
) -> dict[str, Any]:
    """Return the manifest of a run's Job.

    Args:
        owner: metadata of the FineTuneJob.
        spec: what it asks for.
        stage: which of the run's two Jobs.
        run: the run's name.
        spec_hash: hash of the spec, for whoever finds the Job without a status.
        resolved: what prepare found; only for train.
        defaults: what the spec leaves open.
        failures: how many of the attempts that backoffLimit allows are used up by Jobs that this one replaces.

    Raises:
        DocumentTooLarge: if the spec does not fit into an annotation.
    """
    spec = _on_a_cpu(spec) if resolved and resolved.weights_version else spec
    document = run_document(owner, spec, run, resolved, defaults).to_json()
    if len(document.encode()) > MAX_DOCUMENT_BYTES:
        raise DocumentTooLarge("the spec is larger than 200 KiB; shorten labels or trainingArguments")
    labels = names.labels(stage, **{names.FINETUNEJOB: owner.name, names.RUN: run})
    together = stage == "train" and spec.num_nodes > 1
    queue = {names.QUEUE: spec.queue_name} if spec.queue_name else {}
    annotations = {names.SPEC_HASH: spec_hash, **({names.RUN_KEY: resolved.run_key} if resolved else {})}
    if resolved and resolved.weights_version:
        annotations[names.WEIGHTS_VERSION] = resolved.weights_version
    deadline = spec.active_deadline_seconds if stage == "train" else None
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.job_name(run, stage),
            "namespace": owner.namespace,
            "labels": {**labels, **queue},
            "annotations": annotations,
            "ownerReferences": [pods.owner_reference(owner)],
        },
        "spec": {
            **(_all_or_nothing(spec.num_nodes) if together else _retried(spec, failures)),
            **({"activeDeadlineSeconds": deadline} if deadline else {}),
            # From now on it is the queue that says when the Job may run.
            **({"suspend": True} if queue else {}),
            "template": {
                "metadata": pods.metadata(spec.pod_metadata, labels, {names.RUN_DOCUMENT: document}),
                "spec": _pod(owner, spec, stage, run, trainer_image(spec, resolved, defaults), defaults),
            },
        },
    }


def _on_a_cpu(spec: FineTuneJobSpec) -> FineTuneJobSpec:
    """Return the spec for a Job that trains nothing, because a version has the weights."""
    return spec.model_copy(update={"num_nodes": 1, "gpus_per_node": 0})


def _retried(spec: FineTuneJobSpec, failures: int) -> dict[str, Any]:
    """Return how one pod is tried again: by the Job itself."""
    return {"backoffLimit": max(0, spec.backoff_limit - failures), "podFailurePolicy": {"rules": failure_rules()}}


def _all_or_nothing(nodes: int) -> dict[str, Any]:
    """Return how pods that train together are: whichever is lost, all are stopped, and the operator starts over."""
    rules = [
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "NotIn", "values": [0]}},
    ]
    return {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": rules},
    }


def failure_rules(counted: Collection[int] = ()) -> list[dict[str, Any]]:
    """Return the Job's podFailurePolicy: what is not counted, what the Job must not try again; all else is counted.

    Exit codes in `counted` are tried again where others would not be.
    A disruption goes first: a pod that was evicted may well have exited with a code of the other rules.
    """
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": _codes(Retry.NEVER, Retry.PREPARE, but=counted)},
        {"action": "Ignore", "onExitCodes": _codes(Retry.FREE)},
    ]


def _codes(*retries: Retry, but: Collection[int] = ()) -> dict[str, Any]:
    values = [code for code in codes_with(*retries) if code not in but]
    return {"containerName": CONTAINER, "operator": "In", "values": values}


def _pod(owner: Meta, spec: FineTuneJobSpec, stage: Stage, run: str, image: str, defaults: Defaults) -> dict[str, Any]:
    training = stage == "train"
    given = {grant.role: grant for grant in grants(spec).values()}
    pod = trainer_pod(stage, spec, image, list(given.values()), defaults)
    (container,) = pod["containers"]
    container["volumeMounts"] += claims.mounts(spec, stage)
    pod["volumes"] += claims.volumes(spec, stage)
    model_cache.mount(pod, defaults)
    if not training:
        return pod
    meeting = rendezvous.environment(owner, spec, names.job_name(run, stage))
    container["env"] += [{"name": GRACE_VARIABLE, "value": str(defaults.train_grace_s)}, *meeting]
    container["ports"] = [{"name": "http", "containerPort": TRAINER_PORT}]
    container["resources"] = pods.resources(spec.resources, defaults.train, gpus=spec.gpus_per_node)
    return {
        **pod,
        "terminationGracePeriodSeconds": defaults.train_grace_s,
        **rendezvous.network(owner, spec, run),
    }


def trainer_pod(
    command: Component, spec: FineTuneJobSpec, image: str, given: Sequence[Grant], defaults: Defaults
) -> dict[str, Any]:
    """Return the pod that runs one command of the trainer on a CPU, on the document in its annotation."""
    program = ["luthier_trainer", command, RUN_DOCUMENT_PATH]
    return program_pod(program, spec, image, pods.resources(spec.prepare_resources, defaults.prepare), given, defaults)


def program_pod(
    program: Sequence[str],
    placed: Placement,
    image: str,
    resources: Mapping[str, Any],
    given: Sequence[Grant],
    defaults: Defaults,
) -> dict[str, Any]:
    """Return the pod of a Job: it runs one of our programs on the document in its annotation.

    Args:
        program: Python module, and its arguments.
        placed: where it runs.
        image: that holds the program.
        resources: of its container.
        given: its ways to storage.
        defaults: what the spec leaves open.
    """
    module, *arguments = program
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pods.security(defaults),
        "terminationGracePeriodSeconds": 10,
        **pods.placement(placed),
        "containers": [
            {
                "name": CONTAINER,
                "image": image,
                "imagePullPolicy": defaults.image_pull_policy,
                "command": ["python", "-m", module],
                "args": arguments,
                "workingDir": _WORK,
                "env": pods.environment(defaults, _fixed_environment()),
                "resources": dict(resources),
                "securityContext": {**pods.CONTAINER_SECURITY, "readOnlyRootFilesystem": True},
                "terminationMessagePath": TERMINATION_MESSAGE_PATH,
                "terminationMessagePolicy": "File",
                "volumeMounts": [
                    # By subPath, so that keys and CA bundles can be mounted beside it in the same directory.
                    {"name": "run", "mountPath": RUN_DOCUMENT_PATH, "subPath": _FILE, "readOnly": True},
                    {"name": "work", "mountPath": _WORK},
                    *access.mounts(given),
                ],
            }
        ],
        "volumes": [{"name": "run", **_document_file()}, {"name": "work", "emptyDir": {}}, *access.volumes(given)],
    }


def _document_file() -> dict[str, Any]:
    field = f"metadata.annotations['{names.RUN_DOCUMENT}']"
    return {"downwardAPI": {"items": [{"path": _FILE, "fieldRef": {"fieldPath": field}}]}}


def _fixed_environment() -> list[dict[str, str]]:
    # The root file system is read-only, so whatever a library wants to write goes where it may.
    places = {"HOME": _WORK, "TMPDIR": _WORK, "HF_HOME": f"{_WORK}/hf", "PYTHONDONTWRITEBYTECODE": "1"}
    return [{"name": name, "value": value} for name, value in places.items()]
