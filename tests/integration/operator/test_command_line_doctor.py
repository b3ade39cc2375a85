"""`luthier doctor` on a cluster with things broken: each has a row and a fix, and what is repaired has none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from luthier.commands import app
from luthier_api.schema import crds
from support.operator.kuberay import CRD, install_kuberay
from support.s3 import S3

pytestmark = pytest.mark.integration

Rows = dict[str, dict[str, str]]


@pytest.fixture
def doctor(cluster: Any, namespace: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Rows]:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, code: int) -> Rows:
        options = ["doctor", "-n", namespace.name, "-o", "json", *arguments]
        answer = CliRunner().invoke(app, options, catch_exceptions=False)
        assert answer.exit_code == code, answer.output
        return {row["check"]: row for row in json.loads(answer.stdout)}

    return run


@pytest.fixture
def own_keys(s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    return s3


def deployment(name: str, labels: dict[str, str]) -> dict[str, Any]:
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "i"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {**labels, "app.kubernetes.io/version": "0.1.0"}},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }


OPERATOR = {"app.kubernetes.io/name": "luthier", "app.kubernetes.io/component": "operator"}


@pytest.fixture
def old_crds(cluster: Any) -> Iterator[None]:
    """The CRD of an earlier release, without spec.podMetadata."""
    ours = {crd["metadata"]["name"]: crd for crd in crds().values()}["modeldeployments.luthier.dev"]
    older = json.loads(json.dumps(ours))
    del older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["podMetadata"]
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(older))
    yield
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(ours))


def test_each_of_seven_broken_things_has_its_row_and_its_fix(
    cluster: Any, namespace: Any, doctor: Callable[..., Rows], old_crds: None, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "knows")
    cluster.kubectl("delete", "crd", CRD, "--ignore-not-found")
    uri = s3.fresh_uri()
    output = {"name": "sentiment", "uri": uri, "endpoint": s3.endpoint, "secretRef": {"name": "s3"}}
    namespace.submit(output=output, queueName="gpus")
    rows = doctor(code=1)
    assert rows["API server"]["level"] == "ok"
    assert (rows["operator"]["level"], rows["operator"]["message"]) == ("fail", "is not installed")
    assert rows["KubeRay"]["level"] == "fail" and "is not installed" in rows["KubeRay"]["message"]
    assert rows["GPUs"]["level"] == "warn" and "gpusPerNode: 0" in rows["GPUs"]["fix"]
    assert rows["CRD ModelDeployment"]["level"] == "warn"
    assert "it lacks spec.podMetadata" in rows["CRD ModelDeployment"]["message"]
    assert rows["CRD FineTuneJob"]["level"] == "ok"
    assert "does not exist; FineTuneJob reviews names it" in rows["Secret s3"]["message"]
    assert rows["Secret s3"]["fix"].startswith(f"kubectl create secret generic s3 -n {namespace.name}")
    assert rows["LocalQueue gpus"]["level"] == "fail"
    assert rows[f"S3 {uri}/sentiment"]["level"] == "fail"
    assert "AWS_ACCESS_KEY_ID" in rows[f"S3 {uri}/sentiment"]["fix"]
    assert rows["FineTuneJob reviews"]["message"] == "no operator has looked at it"
    assert all(row["fix"] for row in rows.values() if row["level"] in ("fail", "warn")), rows


def test_what_is_repaired_is_well(cluster: Any, namespace: Any, doctor: Callable[..., Rows], own_keys: S3) -> None:
    install_kuberay(cluster)
    uri = own_keys.fresh_uri()
    output = {"name": "sentiment", "uri": uri, "endpoint": own_keys.endpoint, "secretRef": {"name": "s3"}}
    namespace.submit(output=output)
    keys = ("--from-literal=AWS_ACCESS_KEY_ID=a", "--from-literal=AWS_SECRET_ACCESS_KEY=b")
    namespace.kubectl("create", "secret", "generic", "s3", *keys)
    rows = doctor(code=1)
    assert rows["Secret s3"]["level"] == "ok"
    assert rows[f"S3 {uri}/sentiment"]["level"] == "ok"
    assert "honours conditional writes, holds 0 versions" in rows[f"S3 {uri}/sentiment"]["message"]
    assert rows["KubeRay"]["level"] == "warn", "its operator is not running here"
    assert rows["CRD ModelDeployment"]["level"] == "ok"
    assert rows["your rights"]["level"] == "ok"


def test_an_operator_that_does_not_run_or_is_of_another_release_is_seen(
    cluster: Any, namespace: Any, doctor: Callable[..., Rows]
) -> None:
    install_kuberay(cluster)
    namespace.until("its service account", lambda: namespace.all("serviceaccounts"))
    namespace.apply(deployment("luthier", OPERATOR))
    assert "is not running" in doctor("--no-storage", code=1)["operator"]["message"]
    namespace.until("its pod", lambda: namespace.all("pods"))
    (pod,) = namespace.all("pods")
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    namespace.merge("pod", pod["metadata"]["name"], {"status": ready}, status=True)
    count = ("get", "deployment", "luthier", "-o", "jsonpath={.status.readyReplicas}")
    namespace.until("it to run", lambda: namespace.kubectl(*count) == "1")
    assert doctor("--no-storage", code=0)["operator"]["message"] == f"{namespace.name}/luthier runs, release 0.1.0"
    crd = "crd/finetunejobs.luthier.dev"
    cluster.kubectl("label", crd, "app.kubernetes.io/version=0.2.0")
    try:
        row = doctor("--no-storage", code=0)["operator"]
        assert row["level"] == "warn" and "is release 0.1.0, the CRDs are of 0.2.0" in row["message"]
    finally:
        cluster.kubectl("label", crd, "app.kubernetes.io/version-")


def test_a_user_without_rights_is_told_which_are_missing(
    cluster: Any, namespace: Any, doctor: Callable[..., Rows], tmp_path: Path
) -> None:
    namespace.kubectl("create", "serviceaccount", "reader")
    token = namespace.kubectl("create", "token", "reader").strip()
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    rows = doctor("--kubeconfig", str(path), code=1)
    assert rows["your rights"]["level"] == "fail"
    assert "create finetunejobs (to train)" in rows["your rights"]["message"]
    assert "create services/proxy (for predict)" in rows["your rights"]["message"]
    assert rows["GPUs"]["level"] == "warn" and "may not be looked at" in rows["GPUs"]["message"]
