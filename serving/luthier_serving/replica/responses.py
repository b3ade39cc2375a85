"""What goes out over HTTP, as Starlette's responses."""

from collections.abc import Mapping

from starlette.responses import Response

from luthier_serving.errors import RequestError
from luthier_serving.replica.protocols.interface import HttpReply, json_error


def respond(reply: HttpReply, headers: Mapping[str, str] | None = None) -> Response:
    """Return a reply as a response, with further headers."""
    return Response(reply.body, reply.status, {**reply.headers, **(headers or {})}, media_type=reply.media_type)


def error_response(error: RequestError, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error as a response, `{"error": "<one sentence>"}`, with further headers."""
    return respond(json_error(error), headers)
