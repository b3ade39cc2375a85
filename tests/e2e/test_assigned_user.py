"""As on OpenShift: the cluster gives every pod a uid that no image knows, in the group 0, and no pod names another."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from luthier_dev.setup import SYSTEM_NAMESPACE
from luthier_dev.watching import Watched, describe_serving, describe_training
from support.e2e.release import upgrade
from support.e2e.stories import Site, apply, finetunejob, modeldeployment, upload

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

USER = 1000660000  # of the range that OpenShift gives to a namespace
POLICY = "uid-of-the-namespace"
ADMISSION = "admissionregistration.k8s.io/v1beta1"


def policy(*namespaces: str) -> list[dict[str, Any]]:
    """What assigns the uid, and the group of volumes, to each pod that is made there."""
    chosen = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(namespaces)}
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    changed = f"Object.spec.securityContext{{runAsUser: {USER}, fsGroup: {USER}}}"
    change = f"Object{{spec: Object.spec{{securityContext: {changed}}}}}"
    spec = {
        "matchConstraints": {"namespaceSelector": {"matchExpressions": [chosen]}, "resourceRules": [pods]},
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": change}}],
    }
    metadata = {"name": POLICY}
    return [
        {"apiVersion": ADMISSION, "kind": "MutatingAdmissionPolicy", "metadata": metadata, "spec": spec},
        {
            "apiVersion": ADMISSION,
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": metadata,
            "spec": {"policyName": POLICY},
        },
    ]


@pytest.fixture
def assigned(site: Site, namespace: str) -> Iterator[Site]:
    """A cluster that assigns the user in the operator's namespace and in the user's; afterwards as before."""
    upload(site)
    site.kubectl.apply(*policy(SYSTEM_NAMESPACE, namespace))
    upgrade(site, "assignUser=false")
    yield site
    for kind in ("mutatingadmissionpolicybinding", "mutatingadmissionpolicy"):
        site.kubectl("delete", kind, POLICY)
    upgrade(site, "assignUser=true")


def users(site: Site, namespace: str, *flags: str) -> dict[str, int | None]:
    pods = site.kubectl.get("pods", "--namespace", namespace, *flags)["items"]
    return {pod["metadata"]["name"]: pod["spec"].get("securityContext", {}).get("runAsUser") for pod in pods}


def test_operator_training_and_server_run_as_a_user_that_no_image_knows(assigned: Site, namespace: str) -> None:
    apply(
        assigned,
        namespace,
        finetunejob(assigned, "reviews", f"e2e-{secrets.token_hex(4)}", export=["safetensors", "onnx"]),
        modeldeployment("reviews", {"fineTuneJobRef": {"name": "reviews"}}),
    )
    Watched(assigned.kubectl, namespace, "finetunejob", "reviews").wait_until_ready(600, describe_training)
    Watched(assigned.kubectl, namespace, "modeldeployment", "reviews").wait_until_ready(400, describe_serving)
    with assigned.cluster.url_for_service(namespace, "reviews-serve-svc", 8000) as url:
        answer = httpx.post(f"{url}/predict", json={"text": "It broke."}, timeout=30, trust_env=False)
    assert answer.status_code == 200
    seen = users(assigned, namespace) | users(assigned, SYSTEM_NAMESPACE, "--field-selector=status.phase=Running")
    assert set(seen.values()) == {USER}
    assert {"prepare", "train", "head", "luthier"} <= {part for name in seen for part in name.split("-")}
