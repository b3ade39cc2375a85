"""The whole server on a real Ray, with artifacts from a real S3: what clients and the operator see."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import os
import shutil
import signal
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import boto3
import numpy as np
import pytest

from luthier_api.documents import (
    CREDENTIALS_VARIABLE,
    SERVING_DOCUMENT_FILE,
    Access,
    RevisionConfig,
)
from luthier_api.reasons import Reason
from luthier_artifacts import PublishedVersion
from luthier_serving.compute import loading
from luthier_serving.compute.engines import open_engine
from luthier_serving.compute.loading import load_model
from luthier_serving.compute.model import open_model
from luthier_serving.errors import LoadError
from support.serving.local_ray import server_config
from support.temporary_keys import MountedSecret

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

TEXTS = ["the film was good", "bad", "good good film", "a b c d e f g", "The  FILM\n was   good"]


@pytest.fixture(scope="module")
def both(ray: Any, models: Any) -> Any:
    """The first version serves, the second is up beside it without traffic."""
    first, second = models.revision("rev-1", models.first), models.revision("rev-2", models.second)
    serve_first(ray, models)
    return first, second


def serve_first(ray: Any, models: Any, *more: RevisionConfig, **changes: Any) -> None:
    first, second = models.revision("rev-1", models.first), models.revision("rev-2", models.second)
    ray.deploy(server_config(first, (second, 0), **changes), second, *more)
    for name in ("server", "rev-2"):
        ray.wait_for(name, "RUNNING")
    ray.wait_until(lambda: ray.served_version() == models.first.version, 30)


async def ask(session: aiohttp.ClientSession, url: str, document: object) -> tuple[int, Any, Mapping[str, str]]:
    async with session.post(f"{url}/predict", json=document) as reply:
        return reply.status, await reply.json(), reply.headers


async def test_one_text_and_lists_are_answered_as_the_model_computes_them(ray: Any, both: Any, models: Any) -> None:
    expected = open_model(models.folder, "onnxruntime").predict(TEXTS)
    async with aiohttp.ClientSession() as session:
        status, document, headers = await ask(session, ray.url, {"text": TEXTS[0]})
        assert (status, headers["X-Luthier-Version"]) == (200, models.first.version)
        _, several, _ = await ask(session, ray.url, {"texts": TEXTS * 50})
    assert document["input_text"] == TEXTS[0] and document["version"] == models.first.version
    assert document["confidence"] == document["probabilities"][document["prediction"]] > 0.5
    assert document == several["predictions"][0]
    assert len(several["predictions"]) == 250
    for row, wanted in zip(several["predictions"], expected * 50, strict=True):
        assert list(row["probabilities"]) == ["negative", "positive"]
        assert list(row["probabilities"].values()) == pytest.approx(wanted.values, abs=1e-5)
    assert several["predictions"][0]["probabilities"] == several["predictions"][4]["probabilities"]


def test_torch_and_onnxruntime_compute_the_same(models: Any) -> None:
    rows = [open_model(models.folder, name, max_tokens=256).predict(TEXTS) for name in ("torch", "onnxruntime")]
    torch_rows, onnx_rows = (np.array([row.values for row in each]) for each in rows)
    assert np.abs(torch_rows - onnx_rows).max() < 1e-4
    assert torch_rows.std(axis=0).max() > 0.01, "texts that all get the same answer would prove nothing"


@pytest.mark.parametrize(
    ("engine", "file", "words"),
    [
        ("torch", "model.safetensors", "transformers cannot load the artifact"),
        ("onnxruntime", "model.onnx", "ONNX Runtime cannot load model.onnx"),
    ],
)
def test_truncated_weights_are_an_error_in_one_sentence(
    models: Any, tmp_path: Path, engine: Any, file: str, words: str
) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(models.folder, folder)
    (folder / file).write_bytes((folder / file).read_bytes()[:1000])
    with pytest.raises(LoadError, match=words) as failure:
        open_engine(folder, engine, per_token=False, gpus=0, cpus=1)
    assert failure.value.reason is Reason.INVALID_MODEL and "\n" not in str(failure.value)


BAD = [
    (b"", "application/json", 400, "no body"),
    (b"text=hello", "application/json", 400, "not JSON"),
    (b"text=hello", "application/x-www-form-urlencoded", 415, "send application/json"),
    (b'{"text": 7}', "application/json", 422, "text is a number"),
    (b'{"text": ""}', "application/json", 422, "text is empty"),
    (json.dumps({"text": "a" * 10_000_000}).encode(), "application/json", 413, "larger than 1048576 bytes"),
    (json.dumps({"texts": ["a"] * 10_000}).encode(), "application/json", 413, "10000 texts; send at most 1000"),
]


@pytest.mark.parametrize(("body", "content_type", "status", "words"), BAD)
async def test_a_bad_request_gets_one_sentence_through_the_proxy(
    ray: Any, both: Any, body: bytes, content_type: str, status: int, words: str
) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{ray.url}/predict", data=io.BytesIO(body), headers={"Content-Type": content_type}) as reply,
    ):
        assert reply.status == status
        assert words in (await reply.json())["error"]


async def test_a_pair_for_a_model_of_single_texts_is_a_422_through_the_proxy(ray: Any, both: Any) -> None:
    async with aiohttp.ClientSession() as session:
        for asked in ({"text": "good", "text_pair": "bad"}, {"texts": ["good"] * 40, "text_pairs": ["bad"] * 40}):
            status, document, _ = await ask(session, ray.url, asked)
            assert (status, "leave out text_pair" in document["error"]) == (422, True)


async def test_pages_probes_and_the_description_are_served(ray: Any, both: Any, models: Any) -> None:
    async with aiohttp.ClientSession() as session:
        for path, words in {"/": "<textarea", "/docs": "openapi.json", "/openapi.json": '"openapi":"3.1.0"'}.items():
            async with session.get(ray.url + path) as reply:
                assert reply.status == 200 and words in await reply.text()
        async with session.get(ray.url + "/healthz") as reply:
            assert reply.status == 200
        async with session.get(ray.url + "/readyz") as reply:
            ready = await reply.json()
    assert ready["status"] == "ready" and ready["version"] == models.first.version
    assert (ready["task"], ready["weights"]) == ("text-classification", "model.onnx")


def test_the_metrics_of_the_server_can_be_scraped(ray: Any, both: Any) -> None:
    def scraped() -> str:
        with urllib.request.urlopen(ray.metrics_url, timeout=5) as reply:
            text: str = reply.read().decode()
        return text if "ray_luthier_requests_total" in text else ""

    text = ray.wait_until(scraped, 30)
    assert "ray_luthier_batch_texts_bucket" in text and 'revision="rev-1"' in text


def test_rays_own_ports_are_closed_without_the_token(ray: Any, both: Any) -> None:
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(ray.dashboard_url, timeout=5)
    with error.value:
        assert error.value.code == 401


async def test_traffic_moves_between_revisions_without_a_failed_request(ray: Any, both: Any, models: Any) -> None:
    answers: Counter[tuple[int, str | None]] = Counter()
    failures: list[str] = []
    stop = asyncio.Event()

    async def client(session: aiohttp.ClientSession) -> None:
        try:
            status, document, headers = await ask(session, ray.url, {"text": "the film was good"})
            answers[status, headers.get("X-Luthier-Version")] += 1
            if status != 200:
                failures.append(str(document))
        except aiohttp.ClientError as error:
            failures.append(repr(error))

    async def load() -> None:
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            while not stop.is_set():
                group.create_task(client(session))
                await asyncio.sleep(0.02)

    first, second = both
    loading = asyncio.create_task(load())
    for share in (10, 50, 100):
        before = Counter(answers)
        await asyncio.to_thread(ray.deploy, server_config(first, (second, share), window=f"rev-2/{share}"), second)
        wanted = {models.second.version, *([models.first.version] if share < 100 else [])}

        def reached(before: Counter[Any] = before, wanted: set[str] = wanted) -> bool:
            recent = answers - before
            return {version for _, version in recent} >= wanted and recent.total() > 60

        await asyncio.to_thread(ray.wait_until, reached, 30)
    assert await asyncio.to_thread(lambda: ray.report().counts["rev-2"].errors) == 0
    # Promoted: the replica loads it into its own process while its application answers, and then that goes.
    await asyncio.to_thread(ray.deploy, server_config(second, (second, 100)), second)
    held = lambda: [(m.revision, m.state) for m in ray.report().models] == [("rev-2", "Ready")]  # noqa: E731
    await asyncio.to_thread(ray.wait_until, held, 60)
    await asyncio.to_thread(ray.deploy, server_config(second))
    await asyncio.to_thread(ray.wait_until, lambda: "rev-2" not in ray.applications(), 60)
    before = Counter(answers)
    await asyncio.to_thread(ray.wait_until, lambda: (answers - before).total() > 60, 30)
    stop.set()
    await loading
    assert failures == []
    assert answers.total() > 200
    assert answers[200, models.first.version] and answers[200, models.second.version]
    assert await asyncio.to_thread(ray.served_version) == models.second.version


async def test_overload_is_answered_with_503_and_retry_after_and_passes(ray: Any, both: Any, models: Any) -> None:
    await asyncio.to_thread(serve_first, ray, models, max_queued_requests=4)
    many = {"texts": [f"the film was {word}" for word in ("good", "bad") * 400]}
    async with aiohttp.ClientSession() as session:

        async def answered() -> list[tuple[int, Any, Mapping[str, str]]]:
            return await asyncio.gather(*(ask(session, ray.url, many) for _ in range(24)))

        answers = await answered()
        codes = Counter(status for status, _, _ in answers)
        assert set(codes) == {200, 503}
        rejected = [(document, headers) for status, document, headers in answers if status == 503]
        assert all(headers["Retry-After"] == "1" and "are already queued" in doc["error"] for doc, headers in rejected)
        assert (await ask(session, ray.url, many))[0] == 200


async def test_clients_that_hang_up_do_not_disturb_the_others(ray: Any, both: Any, models: Any) -> None:
    await asyncio.to_thread(serve_first, ray, models, max_queued_requests=64)
    body = json.dumps({"texts": ["the film was bad"] * 1000}).encode()
    for sent in (len(body), len(body) // 2):
        for _ in range(15):
            connection = http.client.HTTPConnection("127.0.0.1", ray.http_port)
            connection.putrequest("POST", "/predict")
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body[:sent])
            connection.close()
    async with aiohttp.ClientSession() as session:
        # Two such lists fill the queue. A client that tries again is answered as soon as the first ones are given up.
        async with asyncio.timeout(30):
            for text in TEXTS:
                while (answer := await ask(session, ray.url, {"text": text}))[0] == 503:
                    await asyncio.sleep(0.1)
                assert (answer[0], answer[1]["input_text"]) == (200, text)
        # Not one place stays taken.
        answers = await asyncio.gather(*(ask(session, ray.url, {"text": text}) for text in (TEXTS * 13)[:64]))
    said = [(status, document.get("input_text")) for status, document, _ in answers]
    assert said == [(200, text) for text in (TEXTS * 13)[:64]]


async def test_the_death_of_the_only_replica_delays_requests_and_fails_none(ray: Any, both: Any, models: Any) -> None:
    await asyncio.to_thread(serve_first, ray, models, max_queued_requests=1000)
    many = {"texts": ["the film was good"] * 500}
    async with aiohttp.ClientSession() as session:
        asked = [asyncio.create_task(ask(session, ray.url, many)) for _ in range(20)]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        [replica] = ray.applications()["server"]["deployments"]["Server"]["replicas"]
        os.kill(replica["pid"], signal.SIGKILL)
        asked += [asyncio.create_task(ask(session, ray.url, {"text": "bad"})) for _ in range(20)]
        answers = await asyncio.gather(*asked)
    failed = [document for status, document, _ in answers if status != 200]
    assert failed == []
    [successor] = ray.applications()["server"]["deployments"]["Server"]["replicas"]
    assert successor["pid"] != replica["pid"]


def test_an_artifact_with_one_byte_changed_does_not_load_and_the_old_one_stays_in_service(
    ray: Any, both: Any, models: Any, s3: Any, tmp_path: Path
) -> None:
    changed = models.revision("changed", publish_changed(models, s3, tmp_path))
    serve_first(ray, models, changed)
    application = ray.wait_for("changed", "DEPLOY_FAILED", timeout_s=120)
    message = application["deployments"]["Revision"]["message"]
    sentence = message.rsplit("LoadError: ", 1)[1].splitlines()[0]
    assert sentence.startswith("IntegrityError: ") and SERVING_DOCUMENT_FILE in sentence
    assert ray.served_version() == models.first.version


@pytest.mark.parametrize(
    ("changes", "key", "reason"),
    [
        ({"digest": "sha256:" + "0" * 64}, None, Reason.INTEGRITY_ERROR),
        ({"model_uri": "s3://models/nowhere/reviews/versions/20260131-235959-0a1b2c3d"}, None, Reason.MODEL_NOT_FOUND),
        ({"model_uri": "s3://no-such-bucket/m/versions/20260131-235959-0a1b2c3d"}, None, Reason.BUCKET_NOT_FOUND),
        ({"model_uri": "https://models/m/versions/20260131-235959-0a1b2c3d"}, None, Reason.INVALID_SPEC),
        ({}, "a-stranger", Reason.STORAGE_DENIED),
        ({"access": Access(endpoint="http://127.0.0.1:9", credentials="output")}, None, Reason.STORAGE_UNAVAILABLE),
    ],
)
def test_a_storage_failure_is_a_reason_and_one_sentence(
    models: Any, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: Any, key: Any, reason: Reason
) -> None:
    monkeypatch.setenv("LUTHIER_OUTPUT_AWS_ACCESS_KEY_ID", key or s3.access_key)
    monkeypatch.setenv("LUTHIER_OUTPUT_AWS_SECRET_ACCESS_KEY", s3.secret_key)
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path))
    monkeypatch.setenv("LUTHIER_LOAD_PATIENCE_S", "0")
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    with pytest.raises(LoadError) as failure:
        load_model(models.revision("rev", models.first, **changes))
    assert failure.value.reason is reason
    assert "\n" not in str(failure.value) and len(str(failure.value)) > 40


def test_a_replica_that_starts_after_the_secret_has_changed_uses_its_new_keys(
    models: Any, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = s3.server.reader.environment("")
    revoked = keys | {"AWS_ACCESS_KEY_ID": "a-stranger"}
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    monkeypatch.setenv(CREDENTIALS_VARIABLE, str(tmp_path))
    monkeypatch.setattr(loading, "RETRY_DELAY_S", 0.1)
    secret = MountedSecret(tmp_path / "output", **keys)
    for replica, old in (("first", False), ("second", False), ("third", True)):
        # Without it, the second would find the version in the cache.
        monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / replica))
        revision = models.revision(replica, models.first)
        if replica == "second":
            secret.replace(**revoked)
            with pytest.raises(LoadError) as failure:
                load_model(revision)
            assert failure.value.reason is Reason.STORAGE_DENIED, "the pod has the Secret as it is"
            continue
        if old:  # ... and now perhaps not yet
            secret.age(600)
            threading.Timer(0.5, lambda: secret.replace(**keys)).start()
        assert load_model(revision)


def publish_changed(models: Any, s3: Any, tmp_path: Path) -> PublishedVersion:
    """Publish a version, then change one byte of it in S3, so that it still reads well."""
    folder = tmp_path / "changed"
    shutil.copytree(models.folder, folder)
    document = (folder / SERVING_DOCUMENT_FILE).read_text().replace("negative", "dreadful")
    (folder / SERVING_DOCUMENT_FILE).write_text(document)
    version: PublishedVersion = models.publish("reviews", folder)
    client = boto3.client(
        "s3", endpoint_url=s3.endpoint, aws_access_key_id=s3.access_key, aws_secret_access_key=s3.secret_key,
        region_name="us-east-1",
    )  # fmt: skip
    bucket, key = version.uri.removeprefix("s3://").split("/", 1)
    body = document.replace("dreadful", "dreadfuk").encode()
    client.put_object(Bucket=bucket, Key=f"{key}/{SERVING_DOCUMENT_FILE}", Body=body)
    return version
