"""Every protocol on a real Ray, asked by the clients that others publish: one model, the same answer from all."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest

from luthier_api.documents import Route, ServerConfig
from luthier_dev import inference_clients
from luthier_serving.compute.model import open_model
from luthier_serving.replica.protocols import open_inference_pb2 as messages
from support.serving import published_clients

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

TEXTS = ["the film was good", "bad", "good good film", "The  FILM\n was   good", "naïve ☕"]
CLIENTS = [
    "plain_http",
    "huggingface_hub",
    "triton_http",
    "triton_http_json",
    "triton_grpc",
    "kserve_v1",
    "kserve_v2",
    "kserve_grpc",
]


@pytest.fixture(scope="module")
def served(ray: Any, models: Any) -> Any:
    """A stable version, and another beside it in an application of its own, without requests."""
    first, second = models.revision("rev-1", models.first), models.revision("rev-2", models.second)
    routes = [
        Route(revision="rev-1", version=models.first.version, weight=100),
        Route(revision="rev-2", version=models.second.version, weight=0, own_application=True),
    ]
    ray.deploy(ServerConfig(model_name="reviews", stable=first, routes=routes), second)
    for name in ("server", "rev-2"):
        ray.wait_for(name, "RUNNING", timeout_s=120)
    ray.wait_until(lambda: ray.served_version() == models.first.version, 30)
    return ray


@pytest.fixture(scope="module")
def clients() -> Path:
    return inference_clients.ensure()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_published_client_gets_the_answer_that_the_model_computes(
    served: Any, models: Any, clients: Path, client: str
) -> None:
    command = [str(clients), published_clients.__file__, client, served.url, served.grpc_url, json.dumps(TEXTS)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    expected = [row.values for row in open_model(models.folder, "onnxruntime").predict(TEXTS)]
    assert [label for label, _ in found] == [["negative", "positive"][each.index(max(each))] for each in expected]
    assert [score for _, score in found] == pytest.approx([max(each) for each in expected], abs=1e-5)


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"model_name": "other"}, grpc.StatusCode.NOT_FOUND, "There is no model 'other' here"),
        ({"model_name": "reviews", "model_version": "9"}, grpc.StatusCode.NOT_FOUND, "no version '9' in service"),
        ({"model_name": "reviews"}, grpc.StatusCode.INVALID_ARGUMENT, "There is no input text"),
        (
            {"model_name": "reviews", "raw_input_contents": [b"a" * 5_000_000]},
            grpc.StatusCode.INVALID_ARGUMENT,
            "larger than 1048576 bytes",
        ),
    ],
)
def test_a_bad_call_gets_its_code_and_one_sentence_through_the_proxy(
    served: Any, fields: dict[str, Any], code: grpc.StatusCode, words: str
) -> None:
    with grpc.insecure_channel(served.grpc_url) as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelInferResponse.FromString,
        )
        with pytest.raises(grpc.RpcError) as error:
            infer(messages.ModelInferRequest(**fields), timeout=10)
    assert (error.value.code(), words in error.value.details()) == (code, True)


def test_a_text_that_is_cut_says_so_over_every_way_to_the_model(served: Any, models: Any) -> None:
    long = " ".join(["film"] * 100)
    first = served.post("/predict", {"text": long})
    assert first["truncated_tokens"] == 100 + 2 - 64
    # The same by the other application, over its handle.
    canary = models.revision("rev-2", models.second)
    routes = [
        Route(revision="rev-1", version=models.first.version, weight=0),
        Route(revision="rev-2", version=models.second.version, weight=100, own_application=True),
    ]
    served.deploy(
        ServerConfig(model_name="reviews", stable=models.revision("rev-1", models.first), routes=routes), canary
    )
    served.wait_until(lambda: served.served_version() == models.second.version, 30)
    second = served.post("/", {"inputs": "the film was good", "parameters": {"function_to_apply": "none"}})
    assert served.post("/predict", {"text": long})["truncated_tokens"] == 100 + 2 - 64
    [row] = open_model(models.folder, "onnxruntime").predict(["the film was good"])
    logits = memoryview(row.logits).cast("f").tolist()
    assert sorted(each["score"] for each in second[0]) == pytest.approx(sorted(logits), rel=1e-4)
