"""Responses that are no prediction: JSON, and an error as `{"error": "<one sentence>"}`."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from luthier_serving.errors import RequestError


def json_response(status: int, document: dict[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """Return a document as a response."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, status, headers, media_type="application/json")


def error_response(error: RequestError, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error as a response, with further headers."""
    retry = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return json_response(error.status, {"error": str(error)}, {**retry, **(headers or {})})
