"""The Job of a BatchPrediction: workers of the server's image, each with its number, and the document for all of them.

An Indexed Job: Kubernetes starts a worker that is lost again under its number, and ends the Job when each has ended
well. What the workers have stored outlasts it, so a Job that is deleted and made again computes only what is missing.
"""

from dataclasses import replace
from typing import Any

from luthier_api.batchprediction import BatchPredictionSpec
from luthier_api.documents import RUN_DOCUMENT_PATH, TRAINER_PORT, BulkDocument, Origin, RevisionConfig
from luthier_api.exitcodes import ExitCode
from luthier_operator.manifests import pods, verification
from luthier_operator.manifests.access import Grant
from luthier_operator.manifests.jobs import failure_rules, program_pod
from luthier_operator.model import names
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.views import Meta

CACHE_DIR = "/var/cache/luthier"
_GRACE_S = 30


def grants(spec: BatchPredictionSpec, model: Grant | None) -> dict[str, Grant]:
    """Return {part of the spec: how it is reached}; what names no access of its own is reached like the output.

    Args:
        spec: what is asked for.
        model: how the version is reached; None if neither a FineTuneJob nor the spec says so.
    """
    output = Grant("output", spec.output)
    return {
        "output": output,
        "model": replace(model, role="model") if model else output,
        "input": output if spec.input.is_unset() else Grant("dataset", spec.input),
    }


def document(
    owner: Meta, spec: BatchPredictionSpec, *, run: str, begun: str, model_uri: str, digest: str, model: Grant | None
) -> BulkDocument:
    """Return what all workers are told."""
    given, runtime, read = grants(spec, model), spec.runtime, spec.input
    return BulkDocument(
        model=RevisionConfig(
            name=run,
            model_uri=model_uri,
            version=model_uri.rpartition("/")[2],
            digest=digest,
            access=given["model"].access,
            engine=runtime.engine,
            gpus_per_replica=runtime.gpus_per_replica,
            max_batch_tokens=runtime.max_batch_tokens,
            trusted_keys=verification.trusted_keys(spec.model),
        ),
        input_uri=read.uri,
        input_access=given["input"].access,
        text_column=read.text_column,
        text_columns=read.text_columns,
        text_pair_column=read.text_pair_column,
        id_column=read.id_column,
        format=read.format,
        output_uri=spec.output.uri,
        output_access=given["output"].access,
        output_format=spec.output.format,
        include_text=spec.output.include_text,
        shard_rows=spec.shard_rows,
        workers=spec.parallelism,
        origin=Origin(name=owner.name, namespace=owner.namespace, uid=owner.uid, generation=owner.generation, run=run),
        begun=begun,
    )


def job(
    owner: Meta,
    spec: BatchPredictionSpec,
    *,
    run_hash: str,
    bulk: BulkDocument,
    model: Grant | None,
    defaults: Defaults,
) -> dict[str, Any]:
    """Return the manifest of the Job.

    Args:
        owner: metadata of the BatchPrediction.
        spec: what it asks for.
        run_hash: hash of the spec.
        bulk: what the workers are told.
        model: how the version is reached.
        defaults: what the spec leaves open.
    """
    run = names.batch_run_name(owner.name, run_hash)
    labels = names.labels("predict", **{names.BATCHPREDICTION: owner.name, names.RUN: run})
    queue = {names.QUEUE: spec.queue_name} if spec.queue_name else {}
    deadline = spec.active_deadline_seconds
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.job_name(run, "predict"),
            "namespace": owner.namespace,
            "labels": {**labels, **queue},
            "annotations": {names.SPEC_HASH: run_hash, names.WEIGHTS_VERSION: bulk.model.version},
            "ownerReferences": [pods.owner_reference(owner)],
        },
        "spec": {
            "completionMode": "Indexed",
            "completions": spec.parallelism,
            "parallelism": spec.parallelism,
            "backoffLimit": spec.backoff_limit,
            # A worker that was killed is begun again: it has lost one shard, whatever killed it.
            "podFailurePolicy": {"rules": failure_rules(counted=[ExitCode.KILLED])},
            **({"activeDeadlineSeconds": deadline} if deadline else {}),
            # From now on it is the queue that says when the Job may run.
            **({"suspend": True} if queue else {}),
            "template": {
                "metadata": pods.metadata(spec.pod_metadata, labels, {names.RUN_DOCUMENT: bulk.to_json()}),
                "spec": _pod(spec, model, defaults),
            },
        },
    }


def _pod(spec: BatchPredictionSpec, model: Grant | None, defaults: Defaults) -> dict[str, Any]:
    runtime = spec.runtime
    given = {grant.role: grant for grant in grants(spec, model).values()}
    resources = pods.resources(runtime.resources, defaults.serve, gpus=runtime.gpus_per_replica)
    program = ["luthier_serving.bulk", RUN_DOCUMENT_PATH]
    image = runtime.image or defaults.server_image
    pod = program_pod(program, runtime, image, resources, list(given.values()), defaults)
    (container,) = pod["containers"]
    container["env"].append({"name": "LUTHIER_CACHE", "value": CACHE_DIR})
    container["volumeMounts"] += [{"name": "cache", "mountPath": CACHE_DIR}, *verification.mounts(spec.model)]
    container["ports"] = [{"name": "http", "containerPort": TRAINER_PORT}]
    pod["volumes"] += [{"name": "cache", "emptyDir": {}}, *verification.volumes(spec.model)]
    return {**pod, "terminationGracePeriodSeconds": _GRACE_S}
