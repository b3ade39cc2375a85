"""The description of the HTTP API, as OpenAPI 3.1. Written by hand, because the hot path has no framework to derive it.

It describes the model that answers; while none does, every task that one might have. A test holds it against the
application: every path and method here is served, and the other way round.
"""

from typing import Any

from luthier_api.documents import FrontConfig
from luthier_api.training import Task
from luthier_serving.answers import About
from luthier_serving.tasks import OUTPUTS

JSON = "application/json"
VERSION_HEADERS = {"X-Luthier-Version": {"description": "Model version.", "schema": {"type": "string"}}}


def openapi_document(config: FrontConfig, about: About | None) -> dict[str, Any]:
    """Return the document, with the limits that are in force.

    Args:
        config: says the limits.
        about: the model that answers, None while it is not known.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{config.model_name}: {about.task if about else 'a model'} served by Luthier",
            "version": "v1",
            "description": f"Bodies are at most {config.max_body_bytes} bytes. Every error is one sentence.",
        },
        "paths": {
            "/predict": {"post": _predict(config, about)},
            "/healthz": _probe("The process is alive.", {}),
            "/readyz": _probe("A model answers.", _errors({"503": "No model answers yet."})),
            "/openapi.json": _probe("This document.", {}),
            "/docs": _page("This document as a page."),
            "/": _page("A page to try the model."),
        },
        "components": {"schemas": _schemas(about)},
    }


def _predict(config: FrontConfig, about: About | None) -> dict[str, Any]:
    pairs = [about.pairs] if about else [False, True]
    return {
        "summary": OUTPUTS[about.task].summary if about else "Ask the model about one text or several.",
        "requestBody": {
            "required": True,
            "content": {
                JSON: {
                    "schema": {"oneOf": [body for paired in pairs for body in _bodies(config, paired=paired)]},
                    "examples": {name: example for paired in pairs for name, example in _examples(paired).items()},
                }
            },
        },
        "responses": {
            "200": {
                "description": "The answer: an object for one text or pair, predictions in order for a list.",
                "headers": VERSION_HEADERS,
                "content": {JSON: {"schema": {"anyOf": [_ref("Prediction"), _ref("Predictions")]}}},
            },
            **_errors(
                {
                    "400": "The body is missing or not JSON.",
                    "413": "The body, a text or the list is too large.",
                    "415": "The body is not application/json.",
                    "422": "The JSON is not what is expected, or not what this model reads.",
                    "500": "The model failed on this request.",
                    "503": "Too many requests wait, or no model answers; the header Retry-After says how long to wait.",
                    "504": "The answer took too long.",
                }
            ),
        },
    }


def _bodies(config: FrontConfig, *, paired: bool) -> list[dict[str, Any]]:
    text = {"type": "string", "minLength": 1, "maxLength": config.max_text_characters}
    texts = {"type": "array", "items": text, "minItems": 1, "maxItems": config.max_texts}
    bodies = []
    for names, value in (
        (("text", "text_pair"), text),
        (("texts", "text_pairs"), texts),
        (("text", "text_pair"), texts),
    ):
        fields = names if paired else names[:1]
        bodies.append(
            {
                "type": "object",
                "properties": dict.fromkeys(fields, value),
                "required": list(fields),
                "additionalProperties": False,
            }
        )
    return bodies


def _examples(paired: bool) -> dict[str, Any]:
    one, several = {"text": "What a lovely film."}, {"texts": ["What a lovely film.", "I left after ten minutes."]}
    if not paired:
        return {
            "one": {"summary": "one text", "value": one},
            "several": {"summary": "several texts", "value": several},
        }
    pair = {**one, "text_pair": "A film is praised."}
    pairs = {**several, "text_pairs": ["A film is praised.", "A meal is praised."]}
    return {
        "pair": {"summary": "one pair of texts", "value": pair},
        "pairs": {"summary": "several pairs", "value": pairs},
    }


def _schemas(about: About | None) -> dict[str, Any]:
    tasks = [about.task] if about else list(OUTPUTS)
    return {
        "Prediction": {"anyOf": [_ref(_schema_name(task)) for task in tasks]},
        **{_schema_name(task): _prediction(task, about) for task in tasks},
        "Failure": _object(
            {
                "input_text": {"type": "string"},
                "error": {"type": "string", "description": "Why the model gave no answer to this text."},
                "version": {"type": "string"},
            }
        ),
        "Predictions": _object(
            {"predictions": {"type": "array", "items": {"anyOf": [_ref("Prediction"), _ref("Failure")]}}}
        ),
        "Error": _object({"error": {"type": "string"}}),
    }


def _prediction(task: Task, about: About | None) -> dict[str, Any]:
    read = {"input_text": {"type": "string"}}
    if about and about.pairs:
        read["input_text_pair"] = {"type": "string"}
    version = {"version": {"type": "string", "description": "Model version that answered."}}
    return _object({**read, **OUTPUTS[task].schema(about), **version})


def _schema_name(task: Task) -> str:
    return "".join(word.capitalize() for word in task.split("-"))


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


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
    return {"$ref": f"#/components/schemas/{name}"}
