"""The main job on a real cluster: train, publish, serve, edit, roll out, revert; and what may not go wrong in it."""

from __future__ import annotations

import json
import secrets
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from luthier_api.reasons import ConditionType, Reason
from luthier_artifacts import StorageConfig, download_version
from luthier_dev.setup import make_namespace
from luthier_dev.traffic import VERSION_HEADER, Trickle
from luthier_dev.waiting import wait_until
from luthier_dev.watching import Watched, describe_serving, describe_training
from support.e2e.stories import Site, apply, finetunejob, jobs, modeldeployment, upload

pytestmark = pytest.mark.e2e

NAMESPACE = "t-main-job"
QUESTION = "Terrible. It broke on the first day."


def watched(site: Site, kind: str, name: str) -> Watched:
    return Watched(site.kubectl, NAMESPACE, kind, name)


def trained(site: Site, name: str = "story") -> dict[str, Any]:
    found = watched(site, "finetunejob", name).wait_until_ready(600, describe_training)
    status: dict[str, Any] = found["status"]
    return status


def served(site: Site, name: str = "story") -> dict[str, Any]:
    found = watched(site, "modeldeployment", name).wait_until_ready(400, describe_serving)
    status: dict[str, Any] = found["status"]
    return status


def answering_version(url: str) -> str:
    answer = httpx.post(f"{url}/predict", json={"text": QUESTION}, timeout=30, trust_env=False)
    return answer.headers.get(VERSION_HEADER, f"status {answer.status_code}")


@pytest.fixture(scope="module")
def folder() -> str:
    """A place in the bucket that no earlier run has used, so that nothing is found there."""
    return f"e2e-{secrets.token_hex(4)}"


@pytest.fixture(scope="module")
def story(site: Site, folder: str) -> Iterator[Site]:
    site.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout_s=300)
    upload(site)
    make_namespace(site.cluster, site.storage, NAMESPACE)
    apply(
        site,
        NAMESPACE,
        finetunejob(site, "story", folder),
        modeldeployment("story", {"fineTuneJobRef": {"name": "story"}}),
    )
    yield site
    site.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture(scope="module")
def url(story: Site) -> Iterator[str]:
    trained(story)
    served(story)
    with story.cluster.url_for_service(NAMESPACE, "story-serve-svc", 8000) as found:
        yield found


def test_a_manifest_becomes_a_verified_version_by_two_jobs(story: Site, folder: str, tmp_path: Path) -> None:
    status = trained(story)
    artifact = status["artifact"]
    assert artifact["uri"].startswith(f"s3://models/{folder}/story/versions/")
    assert artifact["promotable"] and float(artifact["metrics"]["eval_accuracy"]) > 0.4
    assert sorted(name.rsplit("-", 1)[1] for name in jobs(story, NAMESPACE).values()) == ["prepare", "train"]
    config = StorageConfig(endpoint=story.storage_url, credentials_env="E2E_")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("E2E_AWS_ACCESS_KEY_ID", story.storage.admin.access_key)
        patch.setenv("E2E_AWS_SECRET_ACCESS_KEY", story.storage.admin.secret_key)
        manifest = download_version(artifact["uri"], tmp_path / "v", config, digest=artifact["digest"])
    names = {entry.path for entry in manifest.files}
    assert {"model.safetensors", "model.onnx", "config.json", "tokenizer.json", "report.html"} <= names


def test_the_training_pod_has_no_kubernetes_credentials_and_is_restricted(story: Site) -> None:
    trained(story)
    for item in story.kubectl.get("jobs", "--namespace", NAMESPACE)["items"]:
        pod = item["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_the_model_answers_one_text_and_a_list(url: str) -> None:
    one = httpx.post(f"{url}/predict", json={"text": QUESTION}, timeout=30, trust_env=False)
    assert one.status_code == 200
    body = one.json()
    assert body["input_text"] == QUESTION and body["prediction"] in ("negative", "positive")
    assert sum(body["probabilities"].values()) == pytest.approx(1.0, abs=1e-3)
    several = httpx.post(f"{url}/predict", json={"texts": ["good", "bad", "good"]}, timeout=30, trust_env=False)
    first, _, third = several.json()["predictions"]
    assert first["prediction"] == third["prediction"]


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (b"", (400, 422), "body"),
        (b"this is not JSON", (400, 422), "JSON"),
        (b'{"text": 7}', (400, 422), "text"),
        (b'{"text": ""}', (400, 422), "empty"),
        (b'{"txt": "a"}', (400, 422), "text"),
        (b'{"text": "' + b"a" * 10_000_000 + b'"}', (413,), "large"),
        (json.dumps({"texts": ["a"] * 10_000}).encode(), (413, 422), "texts"),
    ],
    ids=["no body", "not JSON", "wrong type", "empty text", "no text", "10 MB of text", "10,000 texts"],
)
def test_a_bad_request_gets_one_clear_sentence(url: str, content: bytes, status: tuple[int, ...], says: str) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{url}/predict", content=content, headers=headers, timeout=30, trust_env=False)
    assert answer.status_code in status
    sentence = answer.json()["error"]
    assert says.lower() in sentence.lower() and len(sentence) < 300 and "Traceback" not in sentence
    assert httpx.get(f"{url}/readyz", timeout=10, trust_env=False).status_code == 200


def test_rays_own_ports_are_closed_without_the_token(story: Site, url: str) -> None:
    heads = story.kubectl.get("pods", "--namespace", NAMESPACE, "-l", "ray.io/node-type=head")["items"]
    (address,) = {pod["status"]["podIP"] for pod in heads}
    answer = httpx.get(f"http://{address}:8265/api/serve/applications/", timeout=10, trust_env=False)
    assert answer.status_code == 401


def test_the_metrics_of_a_server_are_where_the_charts_pod_monitor_looks(story: Site, url: str) -> None:
    httpx.post(f"{url}/predict", json={"text": QUESTION}, timeout=30, trust_env=False)
    workers = story.kubectl.get("pods", "--namespace", NAMESPACE, "-l", "ray.io/node-type=worker")["items"]
    ports = {port["name"]: port["containerPort"] for port in workers[0]["spec"]["containers"][0]["ports"]}
    address = f"http://{workers[0]['status']['podIP']}:{ports['metrics']}/metrics"

    def missing() -> str | None:
        said = httpx.get(address, timeout=10, trust_env=False).text
        return None if "ray_luthier_requests_total" in said else "no count of requests"

    wait_until(missing, "the metrics", 60)


def test_an_edit_makes_a_second_version_and_its_revert_serves_the_first_without_a_job(
    story: Site, folder: str, url: str
) -> None:
    first = trained(story)["artifact"]["version"]
    edited = finetunejob(story, "story", folder, hyperparameters={"epochs": 1, "learningRate": "2e-4", "batchSize": 32})
    with Trickle(url, QUESTION) as trickle:
        apply(story, NAMESPACE, edited)
        second = trained(story)["artifact"]["version"]
        assert second != first
        wait_until(lambda: None if answering_version(url) == second else "the first answers", "version 2", 300)
        served(story)
        before = jobs(story, NAMESPACE)
        apply(story, NAMESPACE, finetunejob(story, "story", folder))
        wait_until(lambda: None if answering_version(url) == first else "the second answers", "version 1", 120)
        served(story)
        assert trained(story)["artifact"]["version"] == first
    assert set(jobs(story, NAMESPACE)) <= set(before), "the revert started a Job"
    assert trickle.answers.failures == []
    assert set(trickle.answers.by_version) == {first, second}


def test_the_same_spec_under_another_name_is_found_and_not_trained_again(story: Site, folder: str) -> None:
    version = trained(story)["artifact"]["version"]
    twin = finetunejob(story, "twin", folder)
    twin["spec"]["output"]["name"] = "story"
    apply(story, NAMESPACE, twin)
    status = trained(story, "twin")
    assert status["artifact"]["version"] == version
    ready = next(c for c in status["conditions"] if c["type"] == ConditionType.READY)
    assert ready["reason"] == Reason.REUSED
    assert not [name for name in jobs(story, NAMESPACE).values() if name.startswith("twin") and name.endswith("train")]


def test_an_artifact_with_one_byte_changed_is_refused_by_name(story: Site, url: str) -> None:
    artifact = trained(story)["artifact"]
    bucket, _, prefix = artifact["uri"].removeprefix("s3://").partition("/")
    copy = f"{prefix.rpartition('/')[0]}/20250101-000000-0badbyte"
    for entry in story.s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]:
        content = story.s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
        if entry["Key"].endswith("model.onnx"):
            content = content[:-1] + bytes([content[-1] ^ 1])
        story.s3.put_object(Bucket=bucket, Key=entry["Key"].replace(prefix, copy), Body=content)
    access = {"endpoint": story.storage.endpoint, "secretRef": {"name": "s3-credentials"}}
    bad = {"uri": f"s3://{bucket}/{copy}", "digest": artifact["digest"], **access}
    apply(story, NAMESPACE, modeldeployment("damaged", bad))

    def missing() -> str | None:
        status = watched(story, "modeldeployment", "damaged").read().get("status", {})
        found = {c["type"]: c for c in status.get("conditions", [])}
        stalled = found.get(ConditionType.STALLED)
        return None if stalled and "model.onnx" in stalled["message"] else json.dumps(found.get("Ready"))

    wait_until(missing, "the refusal", 400)
    story.kubectl("delete", "modeldeployment", "damaged", "--namespace", NAMESPACE)
    assert urllib.request.urlopen(f"{url}/readyz", timeout=10).status == 200


def test_the_operator_writes_nothing_while_nothing_happens(story: Site, url: str) -> None:
    served(story)
    trained(story)

    def written() -> dict[str, Any]:
        items = story.kubectl.get("finetunejobs,modeldeployments,jobs", "--namespace", NAMESPACE)["items"]
        return {
            f"{each['kind']}/{each['metadata']['name']}": (each["metadata"]["resourceVersion"], each.get("status"))
            for each in items
        }

    before = written()
    story.kubectl("rollout", "restart", "deployment/luthier", "--namespace", "luthier-system")
    story.kubectl("rollout", "status", "deployment/luthier", "--namespace", "luthier-system", "--timeout=90s")
    assert written() == before


def test_suspending_a_deployment_frees_what_it_holds(story: Site, url: str) -> None:
    story.kubectl(
        "patch",
        "modeldeployment",
        "story",
        "--namespace",
        NAMESPACE,
        "--type=merge",
        "-p",
        json.dumps({"spec": {"suspend": True}}),
    )

    def missing() -> str | None:
        pods = story.kubectl.get("pods", "--namespace", NAMESPACE, "-l", "ray.io/cluster")["items"]
        return f"{len(pods)} pods of Ray" if pods else None

    wait_until(missing, "an empty namespace", 120)
