"""Every protocol over HTTP: the same answer from all, what each can be asked for, and how it refuses the rest."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from starlette.testclient import TestClient

from luthier_api.documents import Route
from luthier_api.training import Task
from luthier_serving.answers import Answer, ModelInfo, Row, Span, Text
from luthier_serving.replica.counters import Counters
from luthier_serving.replica.http import build_http
from luthier_serving.replica.predictor import Predictor, Target
from support.serving import clients
from support.serving.doubles import MODEL, RecordedRequests, config, predictor, ready, respond, row

pytestmark = pytest.mark.unit

TEXTS = ["naïve ☕", "good", "bad film"]
LOGITS = bytes.fromhex("0000803f 00000040")  # 1.0 and 2.0 as float32


def client_of(rows: Row | Callable[[Text], Row], model: ModelInfo, requests: Any = None, **changes: Any) -> TestClient:
    """A server whose only revision is computed in its own process, and answers each text by this row."""
    asked: list[int] = []

    async def send(texts: list[Text], adapter: str | None = None, /) -> Answer:
        asked.append(len(texts))
        return Answer([rows if isinstance(rows, Row) else rows(text) for text in texts], model, "replica-1")

    async def is_ready(version: str | None = None, adapter: str | None = None) -> ModelInfo:
        return model

    made = Predictor(Counters(), lambda revision, texts: None)
    made.configure(config(**changes), [Target("rev-1", 100, True, send, model)])
    client = TestClient(build_http(made, requests or RecordedRequests(), is_ready))
    client.asked = asked  # type: ignore[attr-defined]
    return client


@pytest.fixture
def requests() -> RecordedRequests:
    return RecordedRequests()


@pytest.fixture
def client(requests: RecordedRequests) -> Iterator[TestClient]:
    with TestClient(build_http(predictor(respond), requests, ready)) as client:
        yield client


@pytest.mark.parametrize("protocol", clients.HTTP)
def test_every_protocol_gives_the_same_label_and_score(client: TestClient, protocol: str) -> None:
    assert clients.HTTP[protocol](client, TEXTS) == [("positive", row(text).values[1]) for text in TEXTS]


@pytest.mark.parametrize("protocol", clients.HTTP)
def test_every_protocol_is_counted(client: TestClient, requests: RecordedRequests, protocol: str) -> None:
    clients.HTTP[protocol](client, TEXTS)
    assert requests.codes == [(200, "rev-1")]


V2 = "/v2/models/reviews/infer"
V1 = "/v1/models/reviews:predict"
GOOD: dict[str, Any] = {
    "/predict": {"text": "a"},
    V1: {"instances": ["a"]},
    V2: clients.infer(["a"]),
    "/v2/models/reviews/versions/v1/infer": clients.infer(["a"]),
    "/": {"inputs": "a"},
    "/models/reviews": {"inputs": "a"},
}


@pytest.mark.parametrize("path", GOOD)
def test_every_protocol_names_the_version_that_answered(client: TestClient, path: str) -> None:
    assert client.post(path, json=GOOD[path]).headers["X-Luthier-Version"] == "v1"


def tensor(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{**clients.tensor(["a"]), **changes}]}


MANY, LONG = ["a"] * 1001, "a" * 100_001
BAD: list[tuple[str, Any, int, str]] = [
    (V1, b"", 400, "no body; send {"),
    (V1, b"{", 400, "not JSON"),
    (V1, [], 422, "is a list, not an object"),
    (V1, {}, 422, "no field instances; send {"),
    (V1, {"instances": "a"}, 422, "instances is a string, not a list"),
    (V1, {"instances": []}, 422, "empty list"),
    (V1, {"instances": [7]}, 422, "instances[0] is a number, not a text"),
    (V1, {"instances": ["a", ""]}, 422, "instances[1] is empty"),
    (V1, {"instances": ["\ud83d"]}, 422, "surrogate"),
    (V1, {"instances": [{"text_pair": "a"}]}, 422, "instances[0] has no text"),
    (V1, {"instances": [{"text": "a", "text_pair": 7}]}, 422, "instances[0].text_pair is a number"),
    (V1, {"instances": [{"text": "a", "words": 7}]}, 422, "'words' in instances[0]"),
    (V1, {"instances": ["a", {"text": "a", "text_pair": "b"}]}, 422, "single texts and pairs"),
    (V1, {"instances": [{"text": "a", "text_pair": "b"}]}, 422, "leave out text_pair"),
    (V1, {"instances": ["a"], "signature_name": "x"}, 422, "'signature_name'"),
    (V1, {"instances": MANY}, 413, "1001 texts; send at most 1000"),
    (V1, {"instances": [LONG]}, 413, "instances[0] has 100001 characters"),
    ("/v1/models/other:predict", {"instances": ["a"]}, 404, "no model 'other' here; this server has 'reviews'"),
    ("/", b"text=hello", 400, "not JSON"),
    ("/", {}, 422, "no field inputs"),
    ("/", {"inputs": 7}, 422, "inputs is a number, not a text"),
    ("/", {"inputs": [["a", "b"]]}, 422, "inputs[0] is a list, not a text"),
    ("/", {"inputs": ""}, 422, "inputs is empty"),
    ("/", {"inputs": "a", "text": "b"}, 422, "'text'"),
    ("/", {"inputs": "a", "parameters": []}, 422, "parameters is a list, not an object"),
    ("/", {"inputs": "a", "parameters": {"topk": 1}}, 422, "'topk' in parameters; the parameters are aggregation"),
    ("/", {"inputs": "a", "parameters": {"top_k": 0}}, 422, "top_k is 0, not a whole number of 1 or more"),
    ("/", {"inputs": "a", "parameters": {"top_k": True}}, 422, "top_k is true, not"),
    ("/", {"inputs": "a", "parameters": {"function_to_apply": "tanh"}}, 422, 'is "tanh", not one of softmax, sigmoid'),
    ("/", {"inputs": "a", "parameters": {"function_to_apply": ["none"]}}, 422, "function_to_apply is a list"),
    ("/", {"inputs": "a", "parameters": {"aggregation_strategy": "max"}}, 422, "by its first token; use first, simple"),
    ("/", {"inputs": "a", "parameters": {"aggregation_strategy": "simple"}}, 422, "no option of text-classification"),
    ("/", {"inputs": "a", "parameters": {"ignore_labels": "O"}}, 422, 'ignore_labels is "O", not a list of labels'),
    ("/", {"inputs": "a", "parameters": {"truncation": "yes"}}, 422, 'truncate is "yes", not true or false'),
    ("/", {"inputs": MANY}, 413, "1001 texts"),
    ("/", {"inputs": LONG}, 413, "100001 characters"),
    ("/models/other", {"inputs": "a"}, 404, "no model 'other'"),
    (V2, b"", 400, "no body"),
    (V2, b"{", 400, "not JSON"),
    (V2, {}, 422, "inputs is no list of objects; send {"),
    (V2, {"inputs": []}, 422, "inputs is no list of objects"),
    (V2, {"inputs": ["a"]}, 422, "inputs is no list of objects"),
    (V2, {"inputs": [{"name": "text"}]}, 422, "inputs[0] needs a name, a datatype and a shape"),
    (V2, tensor(name="words"), 422, "no input 'words'; the inputs are text"),
    (V2, tensor(name="text_pair"), 422, "no input text;"),
    (V2, {"inputs": [clients.tensor(["a"])] * 2}, 422, "text comes twice"),
    (V2, tensor(datatype="FP32"), 422, "text is 'FP32'; texts are BYTES"),
    (V2, tensor(shape=[2]), 422, "1 elements and the shape [2]"),
    (V2, tensor(shape=[1, 2]), 422, "the shape of texts is [1] or [1, 1]"),
    (V2, {"inputs": [{**clients.tensor(["a", "b"]), "shape": [1, 2]}]}, 422, "the shape of texts is [2] or [2, 1]"),
    (V2, tensor(data="a"), 422, "inputs[0] has no list of data"),
    (V2, tensor(data=[7]), 422, "text[0] is a number, not a string"),
    (V2, tensor(data=[""]), 422, "text[0] is empty"),
    (V2, tensor(data=[]), 422, "empty list"),
    (V2, tensor(colour="red"), 422, "'colour' in inputs[0]"),
    (V2, tensor(parameters=[]), 422, "inputs[0] has a list for parameters"),
    (V2, clients.infer(["a"], id=7), 422, "id is a number, not a string"),
    (V2, clients.infer(["a"], id="\ud83d"), 422, "surrogate"),
    (V2, clients.infer(["a"], parameters={"topk": 1}), 422, "'topk' in parameters; the parameters are"),
    (V2, clients.infer(["a"], parameters={"top_k": "1"}), 422, 'top_k is "1", not a whole number'),
    (V2, clients.infer(["a"], parameters={"threshold": 2}), 422, "threshold is 2, not a number from 0 to 1"),
    (V2, clients.infer(["a"], parameters={"threshold": 0.5}), 422, "no option of text-classification; its options: f"),
    (V2, clients.infer(["a"], outputs=[{"name": "logits"}]), 422, "no output 'logits'; the outputs of text-classi"),
    (V2, clients.infer(["a"], outputs=[{"parameters": {}}]), 422, "outputs[0] has no name"),
    (V2, clients.infer(["a"], model_name="other"), 422, "model_name is another than 'reviews' in the path"),
    (V2, clients.infer(["a"], priority=1), 422, "'priority'"),
    (V2, {"inputs": [clients.tensor(["a"]), clients.tensor(["a", "b"], "text_pair")]}, 422, "text has 1 texts and"),
    (V2, {"inputs": [clients.tensor(["a"]), clients.tensor(["b"], "text_pair")]}, 422, "leave out text_pair"),
    (V2, clients.infer(MANY), 413, "text has 1001 texts; send at most 1000"),
    (V2, clients.infer([LONG]), 413, "text[0] has 100001 characters"),
    ("/v2/models/other/infer", clients.infer(["a"]), 404, "no model 'other' here; this server has 'reviews'"),
    ("/v2/models/reviews/versions/9/infer", clients.infer(["a"]), 404, "no version '9' in service; in service: v1"),
    ("/predict", {"text": "a", "top_k": 1.5}, 422, "top_k is 1.5, not a whole number"),
    ("/predict", {"text": "a", "threshold": "high"}, 422, 'threshold is "high", not a number from 0 to 1'),
    ("/predict", {"text": "a", "thresholds": 0.5}, 422, "thresholds is 0.5, not an object of labels and numbers"),
    ("/predict", {"text": "a", "thresholds": {"a": 2}}, 422, "thresholds['a'] is 2, not a number"),
    ("/predict", {"text": "a", "truncate": "no"}, 422, 'truncate is "no", not true or false'),
    ("/predict", {"text": "a", "threshold": 0.5}, 422, "threshold is no option of text-classification; its options: f"),
    ("/predict", {"text": "a", "ignore_labels": []}, 422, "Unknown field 'ignore_labels'"),
]


@pytest.mark.parametrize(("path", "body", "status", "words"), BAD)
def test_a_bad_request_gets_its_status_and_one_sentence(
    requests: RecordedRequests, path: str, body: Any, status: int, words: str
) -> None:
    def of_single_texts(text: Text) -> Row:
        return (
            row(text) if isinstance(text, str) else Row([], "The model reads single texts; leave out text_pair.", True)
        )

    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with client_of(of_single_texts, MODEL, requests) as client:
        reply = client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert (reply.status_code, list(reply.json())) == (status, ["error"])
    assert words in reply.json()["error"] and reply.json()["error"].endswith(".")
    assert "\n" not in reply.json()["error"]
    assert [code for code, _ in requests.codes] == [status]


@pytest.mark.parametrize("path", GOOD)
def test_every_protocol_keeps_to_the_limit_of_a_body_and_to_json(path: str) -> None:
    with client_of(row, MODEL, max_body_bytes=2000) as client:
        assert client.post(path, json=GOOD[path]).status_code == 200
        assert client.post(path, json={"padding": "a" * 2000}).status_code == 413
        reply = client.post(path, data={"text": "a"})
        assert (reply.status_code, "send application/json" in reply.json()["error"]) == (415, True)


RAW = clients.packed(["a", "b"])


@pytest.mark.parametrize(
    ("size", "shape", "raw", "header", "status", "words"),
    [
        (len(RAW), [2], RAW, None, 200, ""),
        (len(RAW), [2, 1], RAW, None, 200, ""),
        (len(RAW), [3], RAW, None, 422, "2 elements and the shape [3]"),
        (len(RAW) + 1, [2], RAW, None, 422, f"but {len(RAW)} bytes are left"),
        (-1, [2], RAW, None, 422, "binary_data_size -1"),
        ("10", [2], RAW, None, 422, 'binary_data_size "10"'),
        (len(RAW) - 1, [2], RAW, None, 422, "end inside an element"),
        (2, [2], RAW, None, 422, "end inside an element"),
        (5, [1], RAW, None, 422, "5 bytes behind the JSON belong to no input"),
        (5, [1], clients.packed([b"\xff"]), None, 422, "text[0] is not UTF-8"),
        (len(RAW), [2], RAW, "1000000", 400, "'1000000', not a number of bytes up to"),
        (len(RAW), [2], RAW, "-1", 400, "Inference-Header-Content-Length is '-1'"),
        (len(RAW), [2], RAW, "9" * 5000, 400, "not a number of bytes"),
        (5 * 1001, [1001], clients.packed(["a"] * 1001), None, 413, "more than 1000 texts"),
    ],
)
def test_the_binary_extension_takes_what_fits_and_says_what_does_not(
    client: TestClient, size: Any, shape: list[int], raw: bytes, header: str | None, status: int, words: str
) -> None:
    parameters = {"binary_data_size": size}
    document = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": shape, "parameters": parameters}]}
    text = json.dumps(document).encode()
    headers = {"Inference-Header-Content-Length": header or str(len(text))}
    reply = client.post(V2, content=text + raw, headers=headers)
    assert reply.status_code == status
    if status != 200:
        assert words in reply.json()["error"]


def test_outputs_are_those_that_are_asked_for_each_as_json_or_raw(client: TestClient) -> None:
    asked = [{"name": "score", "parameters": {"binary_data": True}}, {"name": "label"}]
    reply = client.post(V2, json=clients.infer(TEXTS, id="7", outputs=asked))
    size = int(reply.headers["Inference-Header-Content-Length"])
    document = json.loads(reply.content[:size])
    assert (document["model_name"], document["model_version"], document["id"]) == ("reviews", "v1", "7")
    assert [each["name"] for each in document["outputs"]] == ["score", "label"]
    assert document["outputs"][0]["parameters"] == {"binary_data_size": 12} and len(reply.content) == size + 12
    assert document["outputs"][1]["data"] == ["positive"] * 3
    # What the request says of all outputs holds where an output says nothing.
    asked = [{"name": "score"}, {"name": "label", "parameters": {"binary_data": False}}]
    body = clients.infer(TEXTS, parameters={"binary_data_output": True}, outputs=asked)
    reply = client.post(V2, json=body)
    document = json.loads(reply.content[: int(reply.headers["Inference-Header-Content-Length"])])
    assert ["data" in each for each in document["outputs"]] == [False, True]


def test_what_stands_in_probabilities_is_said_beside_them(client: TestClient) -> None:
    document = client.post(V2, json=clients.infer(TEXTS)).json()
    outputs = {each["name"]: each for each in document["outputs"]}
    assert outputs["probabilities"]["shape"] == [3, 2]
    assert outputs["probabilities"]["data"] == [number for text in TEXTS for number in row(text).values]
    assert json.loads(outputs["probabilities"]["parameters"]["labels"]) == ["negative", "positive"]


def test_texts_may_be_nested_as_their_shape_is(client: TestClient) -> None:
    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2, 1], "data": [["a"], ["b"]]}]}
    assert client.post(V2, json=body).json()["outputs"][0]["data"] == ["positive", "positive"]


PAIRS = MODEL._replace(pairs=True)
ASKED_PAIRS: dict[str, Any] = {
    "/predict": {"texts": ["a", "c"], "text_pairs": ["b", "d"]},
    V1: {"instances": [{"text": "a", "text_pair": "b"}, {"text": "c", "text_pair": "d"}]},
    V2: {"inputs": [clients.tensor(["a", "c"]), clients.tensor(["b", "d"], "text_pair")]},
    "/": {"inputs": [{"text": "a", "text_pair": "b"}, {"text": "c", "text_pair": "d"}]},
}


@pytest.mark.parametrize("path", ASKED_PAIRS)
def test_pairs_reach_the_model_in_every_protocol(path: str) -> None:
    found: list[Text] = []

    def remember(text: Text) -> Row:
        found.append(text)
        return Row([0.25, 0.75])

    with client_of(remember, PAIRS) as client:
        assert client.post(path, json=ASKED_PAIRS[path]).status_code == 200
    assert found == [("a", "b"), ("c", "d")]


THREE = ModelInfo("v1", "model.onnx", Task.TEXT_CLASSIFICATION, ("a", "b", "c"), False, 0.5, 8)
SCORES = Row([0.2, 0.5, 0.3], logits=b"")


def test_top_k_keeps_the_most_probable_labels_in_every_protocol_that_has_it() -> None:
    with client_of(SCORES, THREE) as client:
        one = client.post("/predict", json={"text": "x", "top_k": 2}).json()
        scored = client.post("/", json={"inputs": "x", "parameters": {"top_k": 2}}).json()
        outputs = client.post(V2, json=clients.infer(["x", "y"], parameters={"top_k": 2})).json()["outputs"]
        everything = client.post("/", json={"inputs": ["x"], "parameters": {"top_k": None}}).json()
    assert list(one["probabilities"].items()) == [("b", 0.5), ("c", 0.3)] and one["prediction"] == "b"
    assert scored == [[{"label": "b", "score": 0.5}, {"label": "c", "score": 0.3}]]
    assert [(each["name"], each["shape"]) for each in outputs[:2]] == [("label", [2, 2]), ("score", [2, 2])]
    assert (outputs[0]["data"], outputs[1]["data"]) == (["b", "c"] * 2, [0.5, 0.3] * 2)
    assert [each["label"] for each in everything[0]] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("function", "expected"),
    [("softmax", [0.731059, 0.268941]), ("sigmoid", [0.880797, 0.731059]), ("none", [2.0, 1.0]), (None, [0.9, 0.1])],
)
def test_a_function_is_applied_to_the_logits_not_to_the_probabilities(function: str | None, expected: Any) -> None:
    with client_of(Row([0.1, 0.9], logits=LOGITS), MODEL) as client:
        [scored] = client.post("/", json={"inputs": "x", "parameters": {"function_to_apply": function}}).json()
    assert [(each["label"], each["score"]) for each in scored] == [
        *zip(["positive", "negative"], expected, strict=True)
    ]


TAGS = ModelInfo("v1", "model.onnx", Task.MULTI_LABEL, ("a", "b", "c"), False, 0.5, 8)


@pytest.mark.parametrize(
    ("options", "assigned"),
    [
        ({}, ["b"]),
        ({"threshold": 0.3}, ["b", "c"]),
        ({"threshold": 0}, ["a", "b", "c"]),
        ({"threshold": 0.9}, []),
        ({"thresholds": {"a": 0.2}}, ["a", "b"]),
        ({"threshold": 0.9, "thresholds": {"c": 0.1}}, ["c"]),
        ({"threshold": 0.1, "top_k": 2}, ["b", "c"]),
    ],
)
def test_thresholds_decide_which_labels_are_assigned(options: dict[str, Any], assigned: list[str]) -> None:
    with client_of(SCORES, TAGS) as client:
        one = client.post("/predict", json={"text": "x", **options}).json()
        if "thresholds" not in options:
            outputs = client.post(V2, json=clients.infer(["x"], parameters=options)).json()["outputs"]
            by_name = {each["name"]: each for each in outputs}
            flagged = [
                label for label, flag in zip(by_name["label"]["data"], by_name["assigned"]["data"], strict=True) if flag
            ]
            assert sorted(flagged) == sorted(assigned)
    assert one["prediction"] == assigned


def test_a_threshold_for_a_label_that_there_is_not_is_refused_before_anything_is_computed() -> None:
    with client_of(SCORES, TAGS) as client:
        reply = client.post("/predict", json={"text": "x", "thresholds": {"d": 0.5}})
        assert (reply.status_code, client.asked) == (422, [])
    assert "names the label 'd', which the model does not have; its labels: a, b, c." in reply.json()["error"]


WORDS = ModelInfo("v1", "model.onnx", Task.TOKEN_CLASSIFICATION, ("O", "B-PER", "I-PER", "B-LOC"), False, 0.5, 8)
SENTENCE = "Zoë Noether saw Paris"
LABELLED = Row([Span(0, 3, 1, 0.8), Span(4, 11, 2, 0.6), Span(12, 15, 0, 0.9), Span(16, 21, 3, 0.75)])
PER = {"entity_group": "PER", "score": 0.7, "word": "Zoë Noether", "start": 0, "end": 11}
LOC = {"entity_group": "LOC", "score": 0.75, "word": "Paris", "start": 16, "end": 21}
SAW = {"entity_group": "O", "score": 0.9, "word": "saw", "start": 12, "end": 15}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, [PER, LOC]),
        ({"aggregation_strategy": "simple"}, [PER, LOC]),
        ({"aggregation_strategy": "first"}, [PER, LOC]),
        ({"ignore_labels": ["O", "PER"]}, [LOC]),
        ({"ignore_labels": []}, [PER, SAW, LOC]),
        ({"aggregation_strategy": "none", "ignore_labels": ["O", "B-LOC"]}, [
            {"entity": "B-PER", "score": 0.8, "word": "Zoë", "start": 0, "end": 3},
            {"entity": "I-PER", "score": 0.6, "word": "Noether", "start": 4, "end": 11},
        ]),
    ],
)  # fmt: skip
def test_words_are_combined_and_left_out_as_the_request_asks(parameters: dict[str, Any], expected: Any) -> None:
    with client_of(LABELLED, WORDS) as client:
        assert client.post("/", json={"inputs": SENTENCE, "parameters": parameters}).json() == expected
        assert client.post("/", json={"inputs": [SENTENCE], "parameters": parameters}).json() == [expected]


def test_every_task_has_labels_with_scores_in_the_protocols_of_others() -> None:
    entity = {"label": "PER", "score": 0.7, "text": "Zoë Noether", "start": 0, "end": 11}
    place = {"label": "LOC", "score": 0.75, "text": "Paris", "start": 16, "end": 21}
    stars = ModelInfo("v1", "model.onnx", Task.REGRESSION, ("stars",), False, 0.5, 8)
    cases = [
        (SCORES, THREE, {"label": "b", "score": 0.5, "probabilities": {"a": 0.2, "b": 0.5, "c": 0.3}}),
        (SCORES, TAGS, {"labels": [{"label": "b", "score": 0.5}], "probabilities": {"a": 0.2, "b": 0.5, "c": 0.3}}),
        (Row([3.25]), stars, {"label": "stars", "score": 3.25}),
        (LABELLED, WORDS, {"entities": [entity, place]}),
    ]
    for answered, model, expected in cases:
        with client_of(answered, model) as client:
            assert client.post(V1, json={"instances": [SENTENCE]}).json() == {"predictions": [expected]}
            document = client.post(V2, json=clients.infer([SENTENCE])).json()
            described = client.get("/v2/models/reviews").json()["outputs"]
            scored = client.post("/", json={"inputs": SENTENCE}).json()
        outputs = {each["name"]: each["data"] for each in document["outputs"]}
        assert [(each["name"], each["datatype"], len(each["shape"])) for each in described] == [
            (each["name"], each["datatype"], len(each["shape"])) for each in document["outputs"]
        ]
        if "entities" in expected:
            assert json.loads(outputs["entities"][0]) == expected["entities"]
        else:
            best = expected.get("labels", [expected])[0]
            assert (outputs["label"][0], outputs["score"][0]) == (best["label"], best["score"])
            assert scored[0][0] == {"label": best["label"], "score": best["score"]}


CUT = Row([0.1, 0.9], cut_tokens=3)
READS_8 = MODEL._replace(max_tokens=8)


def test_an_answer_says_how_many_tokens_were_cut_and_nothing_where_none_were() -> None:
    with client_of(lambda text: CUT if text == "long" else Row([0.1, 0.9]), READS_8) as client:
        predicted = client.post("/predict", json={"texts": ["long", "short"]}).json()["predictions"]
        instances = client.post(V1, json={"instances": ["long", "short"]}).json()["predictions"]
        inferred = [client.post(V2, json=clients.infer([text])).json() for text in ("long", "short")]
        scored = [client.post("/", json={"inputs": text}) for text in ("long", "short")]
    assert [each.get("truncated_tokens") for each in predicted] == [3, None]
    assert [each.get("truncated_tokens") for each in instances] == [3, None]
    assert [each.get("parameters") for each in inferred] == [{"truncated_tokens": 3}, None]
    assert [each.headers.get("X-Luthier-Truncated-Tokens") for each in scored] == ["3", None]


NO_CUTS: dict[str, tuple[Any, Any]] = {
    "/predict": ({"text": "x", "truncate": False}, {"texts": ["x", "y"], "truncate": False}),
    "/": tuple({"inputs": text, "parameters": {"truncation": False}} for text in ("x", ["x", "y"])),
    V2: tuple(clients.infer(texts, parameters={"truncate": False}) for texts in (["x"], ["x", "y"])),
}


@pytest.mark.parametrize("path", NO_CUTS)
def test_a_text_that_must_not_be_cut_gets_413_with_its_tokens_and_the_limit(path: str) -> None:
    one, several = NO_CUTS[path]
    with client_of(CUT, READS_8) as client:
        reply = client.post(path, json=one)
        assert reply.status_code == 413
        assert "The text has 11 tokens and the model reads 8; send a shorter text" in reply.json()["error"]
    with client_of(lambda text: CUT if text == "y" else Row([0.1, 0.9]), READS_8) as client:
        assert client.post(path, json=one).status_code == 200
        assert "Text 2 of 2 has 11 tokens" in client.post(path, json=several).json()["error"]


FAILS: dict[str, Any] = {V2: clients.infer(["a", "poison"]), "/": {"inputs": ["a", "poison"]}}


@pytest.mark.parametrize("path", FAILS)
def test_where_one_text_of_several_cannot_be_said_to_have_failed_the_request_fails(client: Any, path: str) -> None:
    reply = client.post(path, json=FAILS[path])
    assert (reply.status_code, reply.json()["error"]) == (500, "Text 2 of 2: The model failed on this text.")


def test_where_it_can_the_others_are_answered(client: TestClient) -> None:
    first, second = client.post(V1, json={"instances": ["a", "poison"]}).json()["predictions"]
    assert first["label"] == "positive" and second == {"error": "The model failed on this text."}


def test_what_is_served_is_said_in_the_words_of_each_protocol(client: TestClient) -> None:
    metadata = client.get("/v2/models/reviews").json()
    answers = {
        path: client.get(path).json()
        for path in ("/v1/models", "/v1/models/reviews", "/v2/health/live", "/v2/health/ready")
    }
    assert answers == {
        "/v1/models": {"models": ["reviews"]},
        "/v1/models/reviews": {"name": "reviews", "ready": True},
        "/v2/health/live": {"live": True},
        "/v2/health/ready": {"ready": True},
    }
    server = client.get("/v2").json()
    assert server["name"] == "luthier" and server["extensions"] == ["binary_tensor_data"] and server["version"]
    assert metadata["versions"] == ["v1"] and metadata["inputs"] == [
        {"name": "text", "datatype": "BYTES", "shape": [-1]}
    ]
    assert json.loads(metadata["properties"]["labels"]) == ["negative", "positive"]
    assert client.get("/v2/models/reviews/versions/v1").json() == metadata
    assert client.get("/v2/models/reviews/versions/v1/ready").json() == {"name": "reviews", "ready": True}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/other",
        "/v2/models/other",
        "/v2/models/other/ready",
        "/v2/models/reviews/versions/2",
        "/v2/models/reviews/versions/2/ready",
    ],
)
def test_a_model_or_version_that_there_is_not_is_a_404_with_a_sentence(client: TestClient, path: str) -> None:
    reply = client.get(path)
    assert reply.status_code == 404 and reply.json()["error"].startswith(("There is no model", "The model 'reviews'"))


FILMS = {"name": "films", "uri": "s3://m/films/versions/v", "version": "v", "digest": "sha256:" + "0" * 64}
OF_FILMS = MODEL._replace(version="v", task=Task.MULTI_LABEL, labels=("dull", "funny"))
TO_FILMS: dict[str, Any] = {
    "/predict": {"text": "a", "model": "reviews:films", "threshold": 0.3},
    "/models/reviews:films/predict": {"text": "a", "threshold": 0.3},
    "/v1/models/reviews:films:predict": {"instances": ["a"]},
    "/v2/models/reviews:films/infer": {**clients.infer(["a"]), "parameters": {"threshold": 0.3}},
    "/v2/models/reviews:films/versions/v/infer": {**clients.infer(["a"]), "model_name": "reviews:films"},
    "/models/reviews:films": {"inputs": "a"},
}


@pytest.fixture
def adapted(requests: RecordedRequests) -> Iterator[TestClient]:
    """A client of a server with an adapter, whose task and labels are others than those of the model."""

    async def send(texts: list[Text], adapter: str | None = None, /) -> Answer:
        model = MODEL if adapter is None else OF_FILMS
        return Answer([row(text) for text in texts], model, "replica-1")

    async def described(version: str | None = None, adapter: str | None = None) -> ModelInfo:
        return MODEL if adapter is None else OF_FILMS

    server = predictor(send)
    server.configure(config(adapters=[FILMS]), [Target("rev-1", 100, True, send, MODEL)])
    with TestClient(build_http(server, requests, described)) as client:
        yield client


@pytest.mark.parametrize("path", TO_FILMS)
def test_every_protocol_reaches_an_adapter_which_answers_with_its_own_version_labels_and_options(
    adapted: TestClient, path: str
) -> None:
    reply = adapted.post(path, json=TO_FILMS[path])
    assert reply.status_code == 200, reply.text
    assert reply.headers["X-Luthier-Version"] == "v" and "funny" in reply.text and "positive" not in reply.text
    body = json.dumps(TO_FILMS[path])
    missing = adapted.post(path.replace("films", "books"), json=json.loads(body.replace("films", "books")))
    assert missing.status_code == 404
    assert "'reviews:books' here; this server has 'reviews' and 'reviews:films'." in missing.json()["error"]


def test_what_an_option_means_is_asked_of_the_adapter_and_not_of_the_model(adapted: TestClient) -> None:
    of_model = adapted.post("/predict", json={"text": "a", "threshold": 0.3})
    assert of_model.status_code == 422 and "no option of text-classification" in of_model.json()["error"]
    unknown = adapted.post("/predict", json={"text": "a", "model": "reviews:films", "thresholds": {"positive": 0.3}})
    assert unknown.status_code == 422 and "its labels: dull, funny" in unknown.json()["error"]


def test_adapters_are_among_the_models_that_are_served(adapted: TestClient) -> None:
    assert adapted.get("/v1/models").json() == {"models": ["reviews", "reviews:films"]}
    metadata = adapted.get("/v2/models/reviews:films").json()
    assert (metadata["name"], metadata["versions"]) == ("reviews:films", ["v"])
    assert json.loads(metadata["properties"]["labels"]) == ["dull", "funny"]
    assert adapted.get("/v2/models/reviews:films/ready").json() == {"name": "reviews:films", "ready": True}
    assert adapted.get("/v1/models/reviews:books").status_code == 404
    assert adapted.get("/v2/models/reviews:films/versions/v1").status_code == 404


def test_a_version_that_is_named_answers_although_another_has_nearly_all_requests() -> None:
    routes = [Route(revision="rev-1", version="v1", weight=99), Route(revision="rev-2", version="v2", weight=1)]
    routes.append(Route(revision="rev-3", version="v3", weight=0))
    made = Predictor(Counters(), lambda revision, texts: None)

    def sends(version: str) -> Any:
        async def send(texts: Sequence[Text]) -> Answer:
            return Answer([row(text) for text in texts], MODEL._replace(version=version), "replica-1")

        return send

    targets = [Target(each.revision, each.weight, each.weight == 99, sends(each.version)) for each in routes]
    made.configure(config(routes=routes), targets)
    with TestClient(build_http(made, RecordedRequests(), ready)) as client:
        for version in ("v2", "v1", "v2"):
            reply = client.post(f"/v2/models/reviews/versions/{version}/infer", json=clients.infer(["a"]))
            assert reply.json()["model_version"] == reply.headers["X-Luthier-Version"] == version
        assert client.get("/v2/models/reviews").json()["versions"] == ["v1", "v2"]
        hidden = client.post("/v2/models/reviews/versions/v3/infer", json=clients.infer(["a"]))
        assert hidden.status_code == 404
