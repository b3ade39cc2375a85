"""The description of the API: true of every answer, complete, and with the limits in force."""

import json
import re
from typing import Any

import jsonschema
import pytest
from starlette.testclient import TestClient

from luthier_api.training import Task
from luthier_serving.answers import Answer, ModelInfo, Row, Span, Text
from luthier_serving.replica.http import build_http
from luthier_serving.replica.openapi import openapi_document
from support.serving import clients
from support.serving.doubles import MODEL, RecordedRequests, config, predictor, ready, respond

pytestmark = pytest.mark.unit

ANSWERS: list[tuple[Task, tuple[str, ...], Row, dict[str, Any]]] = [
    (Task.TEXT_CLASSIFICATION, ("a", "b"), Row([0.9, 0.1]), {
        "prediction": "a", "confidence": 0.9, "probabilities": {"a": 0.9, "b": 0.1}}),
    (Task.MULTI_LABEL, ("a", "b", "c"), Row([0.7, 0.2, 0.3]), {
        "prediction": ["a", "c"], "probabilities": {"a": 0.7, "b": 0.2, "c": 0.3}}),
    (Task.MULTI_LABEL, ("a", "b"), Row([0.1, 0.29]), {"prediction": [], "probabilities": {"a": 0.1, "b": 0.29}}),
    (Task.REGRESSION, ("stars",), Row([3.25]), {"prediction": 3.25}),
    (Task.TOKEN_CLASSIFICATION, ("O", "B-PER", "B-LOC"), Row([Span(0, 3, 1, 0.8), Span(9, 14, 2, 0.75)]), {
        "prediction": [
            {"label": "PER", "text": "Zoë", "start": 0, "end": 3, "confidence": 0.8},
            {"label": "LOC", "text": "Paris", "start": 9, "end": 14, "confidence": 0.75},
        ]}),
]  # fmt: skip


@pytest.mark.parametrize(("task", "labels", "row", "expected"), ANSWERS)
def test_each_task_answers_in_its_own_words_and_as_it_is_described(
    task: Task, labels: tuple[str, ...], row: Row, expected: dict[str, Any]
) -> None:
    model = ModelInfo("v1", "model.onnx", task, labels, pairs=False, threshold=0.3)

    async def send(texts: list[Text], adapter: str | None = None, /) -> Answer:
        return Answer([row] * len(texts), model, "replica-1")

    async def ready() -> ModelInfo:
        return model

    with TestClient(build_http(predictor(send), RecordedRequests(), ready)) as client:
        one = client.post("/predict", json={"text": "Zoë  saw Paris"}).json()
        several = client.post("/predict", json={"texts": ["Zoë  saw Paris"] * 2}).json()
        described = client.get("/openapi.json").json()
    assert one == {"input_text": "Zoë  saw Paris", **expected, "version": "v1"}
    assert several == {"predictions": [one, one]}
    for document in (described, openapi_document(config(), None)):
        check(one, "Prediction", document)
        check(several, "Predictions", document)
    with pytest.raises(jsonschema.ValidationError):
        check({**one, "prediction": {"of": "no task"}}, "Prediction", described)


def check(instance: object, name: str, description: dict[str, Any]) -> None:
    """Hold an answer against the description."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": description["components"]}
    jsonschema.Draft202012Validator(schema).validate(instance)


def test_pairs_come_back_as_they_were_sent_and_so_says_the_description() -> None:
    asked: list[list[Text]] = []

    async def send(texts: list[Text], adapter: str | None = None, /) -> Answer:
        asked.append(texts)
        return Answer([Row([0.25, 0.75])] * len(texts), MODEL._replace(pairs=True), "replica-1")

    async def ready() -> ModelInfo:
        return MODEL._replace(pairs=True)

    with TestClient(build_http(predictor(send), RecordedRequests(), ready)) as client:
        one = client.post("/predict", json={"text": "a", "text_pair": "b"}).json()
        several = client.post("/predict", json={"texts": ["a", "c"], "text_pairs": ["b", "d"]}).json()["predictions"]
        description = client.get("/openapi.json").json()
    assert asked == [[("a", "b")], [("a", "b"), ("c", "d")]]
    assert (one["input_text"], one["input_text_pair"], one["prediction"]) == ("a", "b", "positive")
    assert several[0] == one and several[1]["input_text_pair"] == "d"
    check(one, "Prediction", description)
    assert "input_text_pair" in description["components"]["schemas"]["TextClassification"]["required"]
    body = description["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/Request"}
    for example in body["examples"].values():
        check(example["value"], "Request", description)
    with pytest.raises(jsonschema.ValidationError):
        check({"text": "a"}, "Request", description)


def test_the_description_names_exactly_what_is_served() -> None:
    app = build_http(predictor(respond), RecordedRequests(), ready)
    served = {(route.path, method.lower()) for route in app.routes for method in route.methods - {"HEAD"}}
    described = {
        (path, method) for path, methods in openapi_document(config(), None)["paths"].items() for method in methods
    }
    assert described == served


def test_every_reference_in_the_description_is_defined() -> None:
    document = openapi_document(config(), None)
    names = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert names and names <= set(document["components"]["schemas"])


LIMITS = {"max_texts": 3, "max_text_characters": 5, "max_body_bytes": 777}
BODIES = [
    ({"text": "12345"}, True),
    ({"text": "123456"}, False),
    ({"text": ""}, False),
    ({"text": " \t\n"}, False),
    ({"text": 1}, False),
    ({}, False),
    ({"text": "a", "colour": "red"}, False),
    ({"texts": ["a", "b", "c"]}, True),
    ({"texts": ["a", "b", "c", "d"]}, False),
    ({"texts": []}, False),
    ({"texts": "a"}, False),
    ({"texts": ["a", "123456"]}, False),
    ({"text": ["a", "b"]}, True),
    ({"text": "a", "text_pair": "b"}, True),
    ({"texts": ["a"], "text_pairs": ["b"]}, True),
    ({"text": ["a"], "text_pair": ["b"]}, True),
    ({"texts": ["a"], "text_pair": ["b"]}, False),
]


@pytest.mark.parametrize(("body", "valid"), BODIES, ids=[json.dumps(body) for body, _ in BODIES])
def test_the_description_accepts_the_bodies_that_the_server_accepts(body: dict[str, Any], valid: bool) -> None:
    limited = predictor(respond, **LIMITS)
    with TestClient(build_http(limited, RecordedRequests(), ready)) as client:
        assert (client.post("/predict", json=body).status_code == 200) is valid
    document = openapi_document(limited.config, None)
    if valid:
        check(body, "Request", document)
    else:
        with pytest.raises(jsonschema.ValidationError):
            check(body, "Request", document)


def test_the_description_has_the_model_and_the_limits_in_force() -> None:
    with TestClient(build_http(predictor(respond, **LIMITS), RecordedRequests(), ready)) as client:
        document = client.get("/openapi.json").json()
    assert document["info"]["title"] == "reviews: text-classification served by Luthier"
    assert "777 bytes" in document["info"]["description"]
    assert document["components"]["schemas"]["TextClassification"]["properties"]["prediction"]["enum"] == [
        *MODEL.labels
    ]
    assert "MultiLabel" not in document["components"]["schemas"]
    with pytest.raises(jsonschema.ValidationError):
        check({"text": "a", "text_pair": "b"}, "Request", document)


def test_the_labels_of_spans_are_described_as_they_are_answered() -> None:
    model = MODEL._replace(task=Task.TOKEN_CLASSIFICATION, labels=("O", "B-PER", "I-PER", "B-LOC"))
    entity = openapi_document(config(), model)["components"]["schemas"]["Entity"]
    assert entity["properties"]["label"]["enum"] == ["LOC", "PER"]


def test_a_text_that_failed_in_a_list_is_described() -> None:
    with TestClient(build_http(predictor(respond), RecordedRequests(), ready)) as client:
        several = client.post("/predict", json={"texts": ["a", "poison"]}).json()
        check(several, "Predictions", client.get("/openapi.json").json())
    assert "error" in several["predictions"][1]


OTHERS = {
    "/v1/models/reviews:predict": ("V1Request", {"instances": ["Zoë  saw Paris"]}, "V1Response"),
    "/v2/models/reviews/infer": ("InferRequest", clients.infer(["Zoë  saw Paris"], id="7"), "InferResponse"),
    "/": ("HuggingFaceRequest", {"inputs": "Zoë  saw Paris", "parameters": {}}, "HuggingFaceResponse"),
}


@pytest.mark.parametrize("path", OTHERS)
@pytest.mark.parametrize(("task", "labels", "row", "expected"), ANSWERS)
def test_the_protocols_of_others_ask_and_answer_as_they_are_described(
    task: Task, labels: tuple[str, ...], row: Row, expected: dict[str, Any], path: str
) -> None:
    model = ModelInfo("v1", "model.onnx", task, labels, pairs=False, threshold=0.3, max_tokens=8)
    asked, body, answered = OTHERS[path]

    async def send(texts: list[Text]) -> Answer:
        return Answer([row._replace(cut_tokens=3)] * len(texts), model, "replica-1")

    async def ready(version: str | None = None, adapter: str | None = None) -> ModelInfo:
        return model

    with TestClient(build_http(predictor(send), RecordedRequests(), ready)) as client:
        answer = client.post(path, json=body).json()
        described = client.get("/openapi.json").json()
        metadata = client.get("/v2/models/reviews").json()
    for document in (described, openapi_document(config(), None)):
        check(body, asked, document)
        check(answer, answered, document)
        check(metadata, "ModelMetadata", document)
        with pytest.raises(jsonschema.ValidationError):
            check({**body, "colour": "red"}, asked, document)
        with pytest.raises(jsonschema.ValidationError):
            check({"of": "no protocol"}, answered, document)


def test_the_examples_of_the_description_are_answered() -> None:
    with TestClient(build_http(predictor(respond), RecordedRequests(), ready)) as client:
        paths = client.get("/openapi.json").json()["paths"]
        for path, methods in paths.items():
            content = methods.get("post", {}).get("requestBody", {}).get("content", {})
            for example in content.get("application/json", {}).get("examples", {}).values():
                asked = path.replace("{model}", "reviews").replace("{version}", "v1")
                assert client.post(asked, json=example["value"]).status_code == 200, path


OPTIONS = [
    ({"text": "a", "top_k": 1, "truncate": False}, True),
    ({"text": "a", "top_k": 0}, False),
    ({"text": "a", "top_k": None}, True),
    ({"text": "a", "truncate": 1}, False),
    ({"text": "a", "threshold": 0.5}, False),
]


@pytest.mark.parametrize(("body", "valid"), OPTIONS, ids=[json.dumps(body) for body, _ in OPTIONS])
def test_the_description_has_the_options_of_the_model_and_no_others(body: dict[str, Any], valid: bool) -> None:
    made = predictor(respond)
    with TestClient(build_http(made, RecordedRequests(), ready)) as client:
        assert (client.post("/predict", json=body).status_code == 200) is valid
        document = client.get("/openapi.json").json()
    if valid:
        check(body, "Request", document)
    else:
        with pytest.raises(jsonschema.ValidationError):
            check(body, "Request", document)
