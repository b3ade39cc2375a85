"""What tenants are kept from: other namespaces, Secrets, and pods that a restricted namespace would not admit."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from luthier_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from luthier_api.modeldeployment import ModelDeploymentSpec
from luthier_api.storage import StorageAccess
from luthier_dev.kubectl import KubectlFailed
from luthier_operator.manifests import rayservice, removal
from luthier_operator.manifests.access import Grant
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.views import Meta
from support.operator.operator_process import OperatorProcess, as_chart, prepared

pytestmark = pytest.mark.integration

DEFAULTS = Defaults(trainer_image="trainer:1", server_image="server:1")
EVERYTHING: dict[str, Any] = {
    "model": {"uri": "pvc://models/base"},
    "dataset": {"train": {"uri": "pvc://data/reviews.csv"}},
    "output": {
        "name": "sentiment",
        "uri": "s3://models/",
        "endpoint": "https://minio.example.com",
        "secretRef": {"name": "s3"},
        "caBundle": {"name": "ca"},
    },
    "serviceAccountName": "default",
}


@pytest.fixture
def restricted(namespace: Any, cluster: Any) -> Any:
    """A namespace where the API server itself holds pods to the `restricted` pod security standard."""
    cluster.kubectl("label", "namespace", namespace.name, "pod-security.kubernetes.io/enforce=restricted")
    namespace.until("its service account", lambda: namespace.all("serviceaccounts"))
    return namespace


def bare_pod(name: str, template: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "labels": template["metadata"].get("labels", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def test_every_pod_of_a_run_is_admitted_where_only_restricted_pods_are(restricted: Any, own_operator: Any) -> None:
    own_operator.start()
    for nodes in (1, 2):
        restricted.submit(**EVERYTHING, numNodes=nodes)
        restricted.end(restricted.await_pod("prepare"), 0, prepared(str(nodes)))
        restricted.until(
            f"{nodes} pods of train", lambda nodes=nodes: len(restricted_pods(restricted, "train")) == nodes
        )
        (pod, *_) = restricted_pods(restricted, "train")
        assert pod["spec"]["volumes"][-1]["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
        restricted.kubectl("delete", "finetunejob", "reviews")
        restricted.until("the pods to go", lambda: not restricted.all("pods"))


def restricted_pods(namespace: Any, stage: str) -> list[dict[str, Any]]:
    selector = f"app.kubernetes.io/component={stage}"
    return list(namespace.all("pods", selector))


def test_the_pods_of_a_removal_and_of_a_server_are_admitted_there_too(restricted: Any) -> None:
    owner = Meta("FineTuneJob", restricted.name, "reviews", "uid-1", 1)
    spec = FineTuneJobSpec.model_validate(EVERYTHING)
    removing = removal.of_all(owner, spec, FineTuneJobStatus(), (), DEFAULTS)["spec"]["template"]
    serving = ModelDeploymentSpec.model_validate(
        {"model": {"fineTuneJobRef": {"name": "reviews"}}, "autoscaling": {"minReplicas": 1, "maxReplicas": 3}}
    )
    access = StorageAccess.model_validate({"secretRef": {"name": "s3"}, "caBundle": {"name": "ca"}})
    server = Meta("ModelDeployment", restricted.name, "reviews", "uid-2", 1)
    ray = rayservice.cluster_config(server, serving, Grant("model", access), DEFAULTS)
    head, worker = ray["headGroupSpec"]["template"], ray["workerGroupSpecs"][0]["template"]
    # KubeRay adds these two, with the security context of the container beside them.
    options = ray["autoscalerOptions"]
    autoscaler = {"name": "autoscaler", "image": "server:1", "securityContext": options["securityContext"]}
    head["spec"]["containers"].append(autoscaler)
    (container,) = worker["spec"]["containers"]
    waiting = {"name": "wait-gcs-ready", "image": "server:1", "securityContext": container["securityContext"]}
    worker["spec"]["initContainers"] = [waiting]
    for name, template in {"remove": removing, "head": head, "worker": worker}.items():
        spec_of_pod = copy.deepcopy(template)
        spec_of_pod["spec"].setdefault("restartPolicy", "Never")
        restricted.apply(bare_pod(name, spec_of_pod))
        bad = bare_pod(f"{name}-bad", copy.deepcopy(spec_of_pod))
        del bad["spec"]["securityContext"]
        with pytest.raises(KubectlFailed, match="violates PodSecurity"):
            restricted.apply(bad)


def test_an_operator_of_two_namespaces_neither_reads_nor_writes_in_a_third(
    cluster: Any, tmp_path: Path, namespace: Any
) -> None:
    first, second, third = namespace, type(namespace)(cluster), type(namespace)(cluster)
    watched = f"{first.name},{second.name}"
    kubeconfig = as_chart(cluster, tmp_path, first.name, f"watchNamespaces={{{watched}}}")
    for each in (first, second, third):
        each.submit()
    process = OperatorProcess(kubeconfig, tmp_path, LUTHIER_WATCH_NAMESPACES=watched)
    process.start()
    try:
        for each in (first, second):
            each.await_pod("prepare")
        assert not third.all("jobs")
        assert not third.get("finetunejob", "reviews").get("status", {}).get("conditions")
        assert not third.all("events")
    finally:
        process.kill()
        print(process.log)
    account = f"system:serviceaccount:default:{first.name}"

    def may(verb: str, what: str, where: str) -> bool:
        try:
            return str(cluster.kubectl("auth", "can-i", verb, what, f"--as={account}", "-n", where)).strip() == "yes"
        except KubectlFailed:  # kubectl's way to say no
            return False

    kinds = ("finetunejobs.luthier.dev", "jobs.batch", "pods", "services", "events", "rayservices.ray.io")
    assert may("list", "finetunejobs.luthier.dev", second.name) and may("create", "jobs.batch", second.name)
    forbidden = [(verb, kind, third.name) for verb in ("list", "create") for kind in kinds]
    forbidden += [(verb, "secrets", each.name) for verb in ("get", "list") for each in (first, second, third)]
    forbidden += [(verb, "configmaps", first.name) for verb in ("get", "list")]
    forbidden += [("create", "pods/exec", first.name), ("create", "serviceaccounts/token", first.name)]
    assert [each for each in forbidden if may(*each)] == []


def test_what_was_stored_before_a_rule_was_made_gets_a_condition_and_never_stops_the_operator(
    cluster: Any, namespace: Any, own_operator: Any
) -> None:
    crd = json.loads(cluster.kubectl("get", "crd", "finetunejobs.luthier.dev", "-o", "json"))
    loose = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    strict, schema["properties"]["spec"] = schema["properties"]["spec"], loose
    wrong: dict[str, dict[str, Any] | None] = {
        "nodes": {"numNodes": "two"},
        "image": {"image": "a b"},
        "uri": {"model": {"uri": "pvc://../secret"}},
        "request": {"prepareResources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}},
        "account": {"serviceAccountName": "other/trainer"},
        "nothing": None,
    }
    try:
        cluster.kubectl("replace", "-f", "-", stdin=json.dumps(crd))
        for name, said in wrong.items():
            spec = {} if said is None else {**EVERYTHING, **said}
            old = {
                "apiVersion": "luthier.dev/v1alpha1",
                "kind": "FineTuneJob",
                "metadata": {"name": name},
                "spec": spec,
            }
            namespace.until(f"{name} to be stored", lambda old=old: stored(namespace, old))
    finally:
        schema["properties"]["spec"] = strict
        fresh = json.loads(cluster.kubectl("get", "crd", "finetunejobs.luthier.dev", "-o", "json"))
        crd["metadata"]["resourceVersion"] = fresh["metadata"]["resourceVersion"]
        cluster.kubectl("replace", "-f", "-", stdin=json.dumps(crd))
    own_operator.start()
    for name in wrong:
        resource = namespace.await_reason("finetunejob", name, "InvalidSpec")
        message = next(c["message"] for c in resource["status"]["conditions"] if c["type"] == "Stalled")
        assert message.endswith("."), message
    text, _ = own_operator.get("/metrics")
    assert 'luthier_reconcile_errors_total{reason="bug"}' not in text


def stored(namespace: Any, resource: dict[str, Any]) -> bool:
    """The API server takes up a changed schema a little later."""
    try:
        namespace.kubectl("create", "--validate=false", "-f", "-", stdin=json.dumps(resource))
    except KubectlFailed:
        return False
    return True
