"""What lies around the routes, from the outside in; composed anew when the configuration changes it.

    RequestContext   names the request, and the response                            always
    Cors             lets listed web pages call the API                             only with allowed origins
    PathPrefix       takes the path off that the way in from outside puts before    only with a prefix
    (Starlette's)    turns an exception into 500                                    always
    KeyCheck         asks for an API key                                            only with API keys
    EncodedBodies    inflates gzip                                                  always; a look at the headers

What is not used is not there, and costs a request nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from luthier_api.documents import ServerConfig
from luthier_serving.errors import RequestError
from luthier_serving.replica.access import ApiKeys, KeyCheck
from luthier_serving.replica.bodies import EncodedBodies
from luthier_serving.replica.protocols.interface import DIGEST_HEADER, VERSION_HEADER
from luthier_serving.replica.request_context import REQUEST_ID_HEADER, RequestContext
from luthier_serving.replica.responses import error_response

# What a page may read of a response beside its body.
EXPOSED_HEADERS = (VERSION_HEADER, DIGEST_HEADER, REQUEST_ID_HEADER, "Retry-After", "WWW-Authenticate")


class Cors(CORSMiddleware):
    """Starlette's, whose answers are JSON too. No cookies are allowed, so that no page acts in its user's name."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("*",),
            expose_headers=EXPOSED_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return the answer to a browser that asks whether a page may send a request."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        kept = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        wrong = bytes(answer.body).decode().removeprefix("Disallowed CORS ").strip()
        text = f"A page of this origin may not send this request ({wrong}); http.cors.allowOrigins lists who may."
        return error_response(RequestError(text, status=400), kept)


class PathPrefix:
    """ASGI middleware that answers below a path as at the root; what has no such path is answered as it is."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, prefix.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by the application."""
        path = scope.get("path", "")
        if path.startswith(f"{self._prefix}/"):
            scope = {**scope, "path": path[len(self._prefix) :]}
        elif path == self._prefix:
            # So that what the page at the root links to lies below the prefix too.
            here = {"Location": f"{self._prefix}/"}
            return await Response(status_code=307, headers=here)(scope, receive, send)
        await self._app(scope, receive, send)


class LayeredApplication(Starlette):
    """The routes, and what lies around them."""

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        exception_handlers: Mapping[Any, Any],
        *,
        limit_bytes: Callable[[], int],
        keys: ApiKeys | None,
        on_refused: Callable[[], None],
    ) -> None:
        """Ask for keys if there are any; `limit_bytes` is how large a body may be."""
        inner = [Middleware(KeyCheck, keys=keys, on_refused=on_refused)] if keys else []
        inner.append(Middleware(EncodedBodies, limit_bytes=limit_bytes))
        super().__init__(routes=routes, exception_handlers=exception_handlers, middleware=inner)
        self._origins: tuple[str, ...] = ()
        self._prefix = ""

    def configure(self, config: ServerConfig) -> None:
        """Apply what the configuration says of other origins and of the path."""
        origins, prefix = tuple(config.allowed_origins or ()), (config.path_prefix or "").rstrip("/")
        if (origins, prefix) != (self._origins, self._prefix):
            self._origins, self._prefix = origins, prefix
            self.middleware_stack = None  # Starlette makes it again for the next request

    def build_middleware_stack(self) -> ASGIApp:
        """Return all of it. Outside of what answers exceptions, so that those answers are named as well."""
        stack = super().build_middleware_stack()
        if self._prefix:
            stack = PathPrefix(stack, self._prefix)
        if self._origins:
            stack = Cors(stack, self._origins)
        return RequestContext(stack)
