"""huggingface_hub's InferenceClient over real HTTP: what it makes of the answers is what the model says."""

import threading
from collections.abc import Iterator

import pytest
import uvicorn
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from starlette.applications import Starlette

from luthier_api.training import Task
from luthier_dev.processes import free_ports
from luthier_serving.answers import Answer, ModelInfo, Row, Span, Text
from luthier_serving.replica.http import build_http
from support.serving.doubles import MODEL, RecordedRequests, predictor, respond, row

pytestmark = pytest.mark.unit

LABELS = ("O", "B-PER", "I-PER", "B-LOC")
WORDS = ModelInfo("v1", "model.onnx", Task.TOKEN_CLASSIFICATION, LABELS, pairs=False, threshold=0.5)
SENTENCE = "Zoë Noether saw Paris"
SPANS = [Span(0, 3, 1, 0.8), Span(4, 11, 2, 0.6), Span(12, 15, 0, 0.9), Span(16, 21, 3, 0.75)]


async def label_words(texts: list[Text]) -> Answer:
    return Answer([Row(SPANS)] * len(texts), WORDS, "replica-1")


class Served:
    """An application on a port of this machine."""

    def __init__(self, app: Starlette):
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self._server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", ws="none"))
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> str:
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)
        return self.url

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture
def labels_texts() -> Iterator[str]:
    async def ready(version: str | None = None, adapter: str | None = None) -> ModelInfo:
        return MODEL

    with Served(build_http(predictor(respond), RecordedRequests(), ready)) as url:
        yield url


@pytest.fixture
def labels_tokens() -> Iterator[str]:
    async def ready(version: str | None = None, adapter: str | None = None) -> ModelInfo:
        return WORDS

    with Served(build_http(predictor(label_words), RecordedRequests(), ready)) as url:
        yield url


def test_it_reads_labels_with_scores_the_most_probable_first(labels_texts: str) -> None:
    client = InferenceClient(base_url=labels_texts)
    negative, positive = row("good").values
    found = client.text_classification("good")
    assert [(each.label, each.score) for each in found] == [("positive", positive), ("negative", negative)]
    assert len(client.text_classification("good", top_k=1)) == 1


def test_it_reads_entities_and_single_words(labels_tokens: str) -> None:
    client = InferenceClient(model=f"{labels_tokens}/models/reviews")
    entities = [(each.entity_group, each.word, each.start, each.end) for each in client.token_classification(SENTENCE)]
    assert entities == [("PER", "Zoë Noether", 0, 11), ("LOC", "Paris", 16, 21)]
    words = client.token_classification(SENTENCE, aggregation_strategy="none", ignore_labels=["O", "B-LOC"])
    assert [(each.entity, each.word) for each in words] == [("B-PER", "Zoë"), ("I-PER", "Noether")]


def test_it_shows_the_sentence_of_a_refused_request(labels_texts: str) -> None:
    with pytest.raises(HfHubHTTPError, match="inputs is empty; send a text"):
        InferenceClient(base_url=labels_texts).text_classification("")
