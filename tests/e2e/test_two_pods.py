"""Two pods of an Indexed Job train one model over gloo and learn what one process learns."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stories import Site, finetunejob, upload

from luthier_api.documents import Access, Result, RunDocument, credential_env, read_result
from luthier_api.training import TrainingSpec
from luthier_artifacts import StorageConfig, open_registry
from luthier_dev import samples
from luthier_dev.setup import SECRET
from luthier_dev.waiting import wait_until

pytestmark = pytest.mark.e2e

NAME = "two-pods"
IMAGE = "luthier-trainer"
PORT = 29500
BASE = "base/minilm-l6-without-dropout"


@pytest.fixture
def credentials(site: Site) -> dict[str, str]:
    """The admin's keys, by the names that the trainer and its registry read."""
    names = credential_env("output")
    admin = site.storage.admin
    return {names["AWS_ACCESS_KEY_ID"]: admin.access_key, names["AWS_SECRET_ACCESS_KEY"]: admin.secret_key}


def upload_base_without_dropout(site: Site) -> None:
    """The same base model; dropout is random in each process by itself, so it would tell one from two."""
    for file in sorted(samples.base_model().iterdir()):
        site.s3.upload_file(str(file), "models", f"{BASE}/{file.name}")
    config = json.loads((samples.base_model() / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    site.s3.put_object(Bucket="models", Key=f"{BASE}/config.json", Body=json.dumps(config).encode())


def run_document(site: Site, folder: str) -> RunDocument:
    spec = finetunejob(
        site,
        NAME,
        folder,
        model={"uri": f"s3://models/{BASE}"},
        checkpoint={"everySteps": 4},
        trainingArguments={"logging_steps": "1"},
        export=["safetensors"],
    )["spec"]
    fields = {field.alias or name for name, field in TrainingSpec.model_fields.items()}
    deciding = {name: value for name, value in spec.items() if name in fields}
    return RunDocument(spec=TrainingSpec.model_validate(deciding), output_access=access(site.storage_url))


def access(endpoint: str) -> Access:
    return Access(endpoint=endpoint, credentials="output")


def run_here(command: str, run: RunDocument, folder: Path, credentials: dict[str, str]) -> Result:
    """Run the trainer on this machine."""
    folder.mkdir()
    (folder / "run.json").write_text(run.to_json())
    argv = [sys.executable, "-m", "luthier_trainer", command, str(folder / "run.json")]
    done = subprocess.run(argv, env=os.environ | credentials, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return read_result(done.stdout)


def prepared(run: RunDocument, folder: Path, credentials: dict[str, str]) -> RunDocument:
    found = run_here("prepare", run, folder, credentials).prepared
    assert found
    return run.model_copy(update={"resolved": found.resolved})


def manifests(site: Site, run: RunDocument, image: str) -> list[dict[str, Any]]:
    """The run document, the headless Service by which the pods find each other, and the Job."""
    labels = {"app": NAME}
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME},
        "data": {"run.json": run.to_json()},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME},
        # They must find each other before either is ready.
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": labels, "ports": [{"port": PORT}]},
    }
    names = credential_env("output")
    secret = [
        {"name": names[key], "valueFrom": {"secretKeyRef": {"name": SECRET, "key": key}}}
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    ]
    container = {
        "name": "train",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["train", "/etc/luthier/run.json"],
        "env": [
            *secret,
            {"name": "LUTHIER_NUM_NODES", "value": "2"},
            {"name": "LUTHIER_RENDEZVOUS", "value": f"{NAME}-0.{NAME}:{PORT}"},
        ],
        "volumeMounts": [{"name": "run", "mountPath": "/etc/luthier"}],
        "resources": {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"memory": "3Gi"}},
    }
    pod = {
        "subdomain": NAME,
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
        "containers": [container],
        "volumes": [{"name": "run", "configMap": {"name": NAME}}],
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": NAME},
        "spec": {
            "completionMode": "Indexed",
            "completions": 2,
            "parallelism": 2,
            "backoffLimit": 2,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    return [document, service, job]


def losses(site: Site, run: RunDocument, folder: Path, credentials: dict[str, str]) -> dict[int, float]:
    """Download the one version of a run, verified, and return {step: loss}."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in credentials.items():
            patch.setenv(name, value)
        output = run.spec.output
        registry = open_registry(output.uri, output.name, StorageConfig.from_access(access(site.storage_url)))
        (version,) = registry.list_versions()
        registry.download(version, folder)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {entry["step"]: entry["loss"] for entry in log if "loss" in entry}


def results_of_pods(site: Site, namespace: str) -> dict[str, Result]:
    items = site.kubectl.get("pods", "--namespace", namespace, "--selector", f"app={NAME}")["items"]
    ended = {
        item["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]: item["status"][
            "containerStatuses"
        ][0]["state"]["terminated"]
        for item in items
    }
    return {index: read_result(state["message"]) for index, state in ended.items()}


def test_two_pods_learn_what_one_process_learns(
    site: Site, namespace: str, tmp_path: Path, credentials: dict[str, str]
) -> None:
    upload(site)
    upload_base_without_dropout(site)
    root = f"e2e-{secrets.token_hex(4)}"
    alone, together = (
        prepared(run_document(site, f"{root}-{name}"), tmp_path / f"prepare-{name}", credentials)
        for name in ("alone", "together")
    )
    image = site.cluster.image_ref(IMAGE)
    assert image, "the test runs the image that was built from these sources"
    from_inside = together.model_copy(update={"output_access": access(site.storage.endpoint)})
    site.kubectl(
        *("apply", "--namespace", namespace, "--filename=-"),
        stdin="\n---\n".join(json.dumps(each) for each in manifests(site, from_inside, image)),
    )

    def unfinished() -> str | None:
        status = site.kubectl.get("job", NAME, "--namespace", namespace)["status"]
        conditions = {each["type"]: each for each in status.get("conditions", [])}
        assert "Failed" not in conditions, logs(site, namespace)
        return None if "Complete" in conditions else f"{status.get('succeeded', 0)} of 2 pods are done"

    wait_until(unfinished, "the two pods", 900, interval_s=1)
    published = {index: result.published for index, result in results_of_pods(site, namespace).items()}
    assert published["0"] and published["0"] == published["1"]

    run_here("train", alone, tmp_path / "train", credentials)
    one = losses(site, alone, tmp_path / "one", credentials)
    two = losses(site, together, tmp_path / "two", credentials)
    assert len(one) >= 6 and one.keys() == two.keys()
    assert max(abs(one[step] - two[step]) for step in one) < 1e-4
    shutil.rmtree(tmp_path)


def logs(site: Site, namespace: str) -> str:
    return site.kubectl("logs", "--namespace", namespace, "--selector", f"app={NAME}", "--prefix", "--tail=40")
