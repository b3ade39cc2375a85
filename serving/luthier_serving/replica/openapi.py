"""The description of the HTTP API, as OpenAPI 3.1: schemas by pydantic, paths by hand, since no framework derives them.

It describes the model that answers; while none does, every task that one may have. A test compares it with the
application: both have the same paths and methods.
"""

from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, RootModel, conlist, constr, create_model
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from luthier_api.documents import ServerConfig
from luthier_api.training import Task
from luthier_serving.answers import ModelInfo
from luthier_serving.replica import openapi_protocols as protocols
from luthier_serving.replica.protocols.predict import OPTIONS, PAIR_FIELDS
from luthier_serving.replica.protocols.v2 import BINARY
from luthier_serving.tasks import OUTPUTS
from luthier_serving.tasks.probabilities import Probability

JSON = "application/json"
REFERENCE = "#/components/schemas/{model}"
VERSION_HEADERS = {
    "X-Luthier-Version": {"description": "Model version.", "schema": {"type": "string"}},
    "X-Luthier-Digest": {"description": "Digest of that version.", "schema": {"type": "string"}},
}
FAILURES = {
    "400": "The body is missing, is not JSON, or is not the gzip that it says it is.",
    "408": "The head or the body of the request took too long to arrive.",
    "413": "The body, a text or the list is too large, or the model cannot read all of a text and truncate is false.",
    "415": "The body is not application/json, or is compressed otherwise than by gzip.",
    "422": "The JSON has wrong fields, or this model does not read such texts, or has no such option.",
    "500": "The model failed on this request.",
    "503": "Too many requests are queued, or no model answers; retry after the time in Retry-After.",
    "504": "The answer took too long.",
}
NOT_FOUND = {"404": "There is no such model or version here."}
NOT_READY = {"503": "No model answers yet."}


class Error(BaseModel):
    """An error, in one sentence."""

    error: str


class Failure(BaseModel):
    """A text of a list for which the model failed."""

    input_text: str
    error: str = Field(description="Why there is no prediction for this text.")
    version: str


class _WithoutTitles(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def openapi_document(config: ServerConfig, model: ModelInfo | None) -> dict[str, Any]:
    """Return the document, with the limits that are in force.

    Args:
        config: has the limits.
        model: the model that answers, None while none does.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{config.model_name}: {model.task if model else 'a model'} served by Luthier",
            "version": "v1",
            "description": f"A body may have at most {config.max_body_bytes} bytes. Every error is one sentence.",
        },
        "paths": {
            "/predict": {"post": _predict(model)},
            "/models/{model}/predict": {"post": {**_predict(model), "parameters": [protocols.MODEL_PATH]}},
            "/healthz": _probe("The process is alive.", {}),
            "/readyz": _probe("A model answers.", _errors({"503": "No model answers yet."})),
            "/openapi.json": _probe("This document.", {}),
            "/docs": _page("This document as a page."),
            "/": {**_page("A page to try the model."), **_answers("hugging_face", model)},
            "/models/{model}": _at(protocols.MODEL_PATH, **_answers("hugging_face", model)),
            **_v1(model),
            **_v2(model),
        },
        "components": {"schemas": _schemas(config.max_texts, config.max_text_characters, model)},
    }


def _predict(model: ModelInfo | None) -> dict[str, Any]:
    return {
        "summary": OUTPUTS[model.task].summary if model else "Predict for one text or several.",
        "requestBody": {
            "required": True,
            "content": {
                JSON: {
                    "schema": _ref("Request"),
                    "examples": {
                        name: example for pairs in _pairs(model) for name, example in _examples(pairs).items()
                    },
                }
            },
        },
        "responses": {
            "200": {
                "description": "An object for one text or pair; for a list, the predictions in order.",
                "headers": VERSION_HEADERS,
                "content": {JSON: {"schema": {"anyOf": [_ref("Prediction"), _ref("Predictions")]}}},
            },
            **_errors(FAILURES | NOT_FOUND),
        },
    }


def _pairs(model: ModelInfo | None) -> list[bool]:
    """Return whether requests hold pairs; both while the model is not known."""
    return [model.pairs] if model else [False, True]


def _examples(pairs: bool) -> dict[str, Any]:
    one, several = {"text": "What a lovely film."}, {"texts": ["What a lovely film.", "I left after ten minutes."]}
    if not pairs:
        return {
            "one": {"summary": "one text", "value": one},
            "several": {"summary": "several texts", "value": several},
        }
    pair = {**one, "text_pair": "A film is praised."}
    several_pairs = {**several, "text_pairs": ["A film is praised.", "A meal is praised."]}
    return {
        "pair": {"summary": "one pair of texts", "value": pair},
        "pairs": {"summary": "several pairs", "value": several_pairs},
    }


@lru_cache(maxsize=4)
def _schemas(max_texts: int, max_text_characters: int, model: ModelInfo | None) -> dict[str, Any]:
    """Return {name: JSON schema}; kept, because building the models takes 30 ms of the event loop."""
    answers = [_answer(task, model) for task in ([model.task] if model else OUTPUTS)]
    prediction = _union("Prediction", answers)
    # White space alone is no text.
    text = constr(min_length=1, max_length=max_text_characters, pattern=r"\S")
    texts = conlist(text, min_length=1, max_length=max_texts)
    request = _union("Request", [body for pairs in _pairs(model) for body in _bodies(text, texts, pairs, model)])
    entry = _union("PredictionOrFailure", [prediction, Failure])
    predictions = create_model("Predictions", predictions=(conlist(entry), ...))
    others = [*protocols.request_schemas(text, max_texts, model), *protocols.ANSWERS]
    roots: list[type[BaseModel]] = [request, prediction, predictions, Error, *others]
    _, schemas = models_json_schema(
        [(root, "serialization") for root in roots], ref_template=REFERENCE, schema_generator=_WithoutTitles
    )
    definitions: dict[str, Any] = schemas["$defs"]
    return definitions


def _bodies(text: Any, texts: Any, pairs: bool, model: ModelInfo | None) -> list[type[BaseModel]]:
    options = _options(model)
    names = ("OnePair", "Pairs", "ListOfPairs") if pairs else ("OneText", "Texts", "ListOfTexts")
    bodies = []
    for name, field, value in zip(names, ("text", "texts", "text"), (text, texts, texts), strict=True):
        fields: dict[str, Any] = dict.fromkeys([field, PAIR_FIELDS[field]] if pairs else [field], (value, ...))
        fields |= options
        fields["model"] = (str | None, Field(None, description="The name of the model, or NAME:adapter."))
        bodies.append(create_model(name, __config__=ConfigDict(extra="forbid"), **fields))
    return bodies


def _options(model: ModelInfo | None) -> dict[str, Any]:
    """Return the options that stand beside the texts: those of the model, or all."""
    labels: Any = dict[str, Probability] | None
    fields: dict[str, Any] = {
        "top_k": (int | None, Field(None, ge=1, description="So many of the most probable labels at most.")),
        "threshold": (Probability | None, Field(None, description="Labels are assigned from this probability on.")),
        "thresholds": (labels, Field(None, description="The same for single labels.")),
        "truncate": (bool | None, Field(None, description="false: a text that is too long gets 413.")),
    }
    known = OPTIONS if model is None else (OUTPUTS[model.task].options & OPTIONS) | {"truncate"}
    return {name: field for name, field in fields.items() if name in known}


def _answer(task: Task, model: ModelInfo | None) -> type[BaseModel]:
    name = "".join(word.capitalize() for word in task.split("-"))
    fields: dict[str, Any] = {"input_text": (str, ...)}
    if model and model.pairs:
        fields["input_text_pair"] = (str, ...)
    fields |= OUTPUTS[task].fields(model)
    cut = "Tokens of the text that the model did not read, since it was too long; absent if it read all."
    fields["truncated_tokens"] = (int | None, Field(None, ge=1, description=cut))
    fields["version"] = (str, Field(description="Version of the model that answered."))
    answer: type[BaseModel] = create_model(name, **fields)
    return answer


def _union(name: str, members: list[type[BaseModel]]) -> type[BaseModel]:
    union: Any = members[0]
    for member in members[1:]:
        union = union | member
    return create_model(name, __base__=RootModel[union])


def _v1(model: ModelInfo | None) -> dict[str, Any]:
    return {
        "/v1/models": _tells("KServe v1: the names of the models.", "Models"),
        "/v1/models/{model}": _at(
            protocols.MODEL_PATH, **_tells("KServe v1: the model answers.", "ModelReady", NOT_FOUND | NOT_READY)
        ),
        "/v1/models/{model}:predict": _at(protocols.MODEL_PATH, **_answers("v1", model)),
    }


def _v2(model: ModelInfo | None) -> dict[str, Any]:
    paths = {
        "/v2": _tells("Open Inference Protocol: which server this is.", "ServerMetadata"),
        "/v2/health/live": _tells("Open Inference Protocol: the process lives.", "Live"),
        "/v2/health/ready": _tells("Open Inference Protocol: a model answers.", "ReadyNow", NOT_READY),
    }
    missing = NOT_FOUND | NOT_READY
    for path, names in (("", []), ("/versions/{version}", [protocols.VERSION_PATH])):
        names = [protocols.MODEL_PATH, *names]
        at = "/v2/models/{model}" + path
        paths |= {
            at: _at(*names, **_tells("Open Inference Protocol: inputs and outputs.", "ModelMetadata", missing)),
            f"{at}/ready": _at(*names, **_tells("Open Inference Protocol: it answers.", "ModelReady", missing)),
            f"{at}/infer": _at(*names, **_answers("v2", model)),
        }
    return paths


def _at(*parameters: dict[str, Any], **operations: dict[str, Any]) -> dict[str, Any]:
    """Return operations with the parameters of their path."""
    return {method: {"parameters": [*parameters], **operation} for method, operation in operations.items()}


def _answers(protocol: str, model: ModelInfo | None) -> dict[str, Any]:
    """Return the description of where texts are answered in one of the other protocols."""
    title, asked, answered = {
        "v1": ("KServe v1", "V1Request", "V1Response"),
        "v2": ("Open Inference Protocol", "InferRequest", "InferResponse"),
        "hugging_face": ("Hugging Face", "HuggingFaceRequest", "HuggingFaceResponse"),
    }[protocol]
    examples = protocols.examples_of(protocol, model)
    content: dict[str, Any] = {JSON: {"schema": _ref(answered)}} | ({BINARY: {}} if protocol == "v2" else {})
    answer = {"description": "The answer.", "headers": VERSION_HEADERS, "content": content}
    return {
        "post": {
            "summary": f"{title}: {OUTPUTS[model.task].summary if model else 'Predict for texts.'}",
            "requestBody": {"required": True, "content": {JSON: {"schema": _ref(asked), "examples": examples}}},
            "responses": {"200": answer, **_errors(FAILURES | NOT_FOUND)},
        }
    }


def _tells(summary: str, answer: str, errors: dict[str, str] | None = None) -> dict[str, Any]:
    told = {"description": summary, "content": {JSON: {"schema": _ref(answer)}}}
    return {"get": {"summary": summary, "responses": {"200": told, **_errors(errors or {})}}}


def _errors(reasons: dict[str, str]) -> dict[str, Any]:
    return {
        code: {"description": reason, "content": {JSON: {"schema": _ref("Error")}}} for code, reason in reasons.items()
    }


def _probe(summary: str, errors: dict[str, Any]) -> dict[str, Any]:
    answer = {"description": summary, "content": {JSON: {"schema": {"type": "object"}}}}
    return {"get": {"summary": summary, "responses": {"200": answer, **errors}}}


def _page(summary: str) -> dict[str, Any]:
    return {"get": {"summary": summary, "responses": {"200": {"description": summary, "content": {"text/html": {}}}}}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": REFERENCE.format(model=name)}
