"""The description of the HTTP API, as OpenAPI 3.1. Written by hand, because the hot path has no framework to derive it.

A test holds it against the application: every path and method here is served, and the other way round.
"""

from typing import Any

from luthier_api.documents import FrontConfig

JSON = "application/json"


def openapi_document(config: FrontConfig) -> dict[str, Any]:
    """Return the document, with the limits that are in force."""
    text = {"type": "string", "minLength": 1, "maxLength": config.max_text_characters}
    texts = {"type": "array", "items": text, "minItems": 1, "maxItems": config.max_texts}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{config.model_name}: a text classifier served by Luthier",
            "version": "v1",
            "description": f"Bodies are at most {config.max_body_bytes} bytes. Every error is one sentence.",
        },
        "paths": {
            "/predict": {"post": _predict(text, texts)},
            "/healthz": _probe("The process is alive.", {}),
            "/readyz": _probe("A model answers.", _errors({"503": "No model answers yet."})),
            "/openapi.json": _probe("This document.", {}),
            "/docs": _page("This document as a page."),
            "/": _page("A page to try the model."),
        },
        "components": {"schemas": _schemas()},
    }


def _predict(text: dict[str, Any], texts: dict[str, Any]) -> dict[str, Any]:
    one = {"type": "object", "properties": {"text": text}, "required": ["text"], "additionalProperties": False}
    many = [
        {"type": "object", "properties": {name: texts}, "required": [name], "additionalProperties": False}
        for name in ("texts", "text")
    ]
    examples = {
        "one": {"summary": "one text", "value": {"text": "What a lovely film."}},
        "several": {
            "summary": "several texts",
            "value": {"texts": ["What a lovely film.", "I left after ten minutes."]},
        },
    }
    answer = {"anyOf": [_ref("Prediction"), _ref("Predictions")]}
    return {
        "summary": "Classify one text or several.",
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": {"oneOf": [one, *many]}, "examples": examples}},
        },
        "responses": {
            "200": {
                "description": "The answer: an object for one text, predictions in order for a list.",
                "headers": {"X-Luthier-Version": {"description": "Model version.", "schema": {"type": "string"}}},
                "content": {JSON: {"schema": answer}},
            },
            **_errors(
                {
                    "400": "The body is missing or not JSON.",
                    "413": "The body, a text or the list is too large.",
                    "415": "The body is not application/json.",
                    "422": "The JSON is not what is expected.",
                    "500": "The model failed on this request.",
                    "503": "Too many requests wait, or no model answers; the header Retry-After says how long to wait.",
                    "504": "The answer took too long.",
                }
            ),
        },
    }


def _schemas() -> dict[str, Any]:
    share = {"type": "number", "minimum": 0, "maximum": 1}
    prediction = {
        "input_text": {"type": "string"},
        "prediction": {"type": "string", "description": "The likeliest label."},
        "confidence": {**share, "description": "Its probability."},
        "probabilities": {"type": "object", "additionalProperties": share},
        "version": {"type": "string", "description": "Model version that answered."},
    }
    return {
        "Prediction": {"type": "object", "properties": prediction, "required": list(prediction)},
        "Predictions": {
            "type": "object",
            "properties": {"predictions": {"type": "array", "items": _ref("Prediction")}},
            "required": ["predictions"],
        },
        "Error": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]},
    }


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
