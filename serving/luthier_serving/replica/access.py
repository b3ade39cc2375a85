"""Who may ask: API keys from a Secret that is mounted as a folder, each file of which holds one.

The folder is read anew while requests come in, at most once a second: keys that the kubelet replaces are valid, or
valid no more, without a restart. Without one usable key nobody is admitted. A key is compared by its digest with all
keys there are, in constant time; what is known of it afterwards is the name of its file, never its value.
"""

import hashlib
import hmac
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from luthier_api.documents import ApiKeysState
from luthier_serving.errors import RequestError
from luthier_serving.replica.bodies import discard
from luthier_serving.replica.responses import error_response

# What probes of clusters and clients of the Open Inference Protocol ask, who have no key.
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
SCOPE_KEY = "luthier.api_key"
_LOOK_S = 1.0
_ATTEMPTS = 3
_CHALLENGE = 'Bearer realm="luthier"'
# What a header can carry after the scheme.
_USABLE = re.compile(rb"[!-~]+")

logger = logging.getLogger("ray.serve")


class ApiKeys:
    """The keys of a folder, as they are now."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the keys; and again later, whenever somebody is to be identified."""
        self._folder, self._clock = folder, clock
        self._digests: dict[str, bytes] = {}
        self._said = ""
        self.state = ApiKeysState(count=0)
        self._look()

    def identify(self, authorization: bytes | None) -> str | None:
        """Return the name of the key in an Authorization header; None if it has none, or one that is not known."""
        self.refresh()
        scheme, _, token = (authorization or b"").strip().partition(b" ")
        digest = hashlib.sha256(token.strip() if scheme.lower() == b"bearer" else b"").digest()
        found = None
        for name, known in self._digests.items():
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def admit(self, sent: Sequence[bytes]) -> str:
        """Return the name of the key in the one Authorization header, or metadata, of a request.

        Raises:
            RequestError: 401, there is none, or it is not known.
        """
        name = self.identify(sent[0]) if len(sent) == 1 else None
        if name is not None:
            return name
        what = "API key is not known here; send a valid one" if sent else "request has no API key; send one"
        raise RequestError(f"The {what} as Authorization: Bearer <key>.", status=401)

    def refresh(self) -> None:
        """Read the folder, if it was not read within the last second."""
        if self._clock() - self._looked_at >= _LOOK_S:
            self._look()

    def _look(self) -> None:
        self._looked_at = self._clock()
        found: Mapping[str, bytes] = {}
        try:
            found = _read(self._folder)
            message = "" if any(map(_is_usable, found.values())) else "The Secret with the API keys holds no usable key"
        except OSError as error:
            message = f"The folder {self._folder} with the API keys cannot be read ({error.strerror or error})"
        keys = {name: value for name, value in found.items() if _is_usable(value)}
        self._digests = {name: hashlib.sha256(value).digest() for name, value in keys.items()}
        self.state = ApiKeysState(count=len(keys), message=f"{message}, so nobody is admitted." if message else "")
        self._say(sorted(keys), sorted(set(found) - set(keys)))

    def _say(self, names: list[str], unusable: list[str]) -> None:
        """Log what has changed."""
        said = self.state.message or f"API keys: {', '.join(names)}"
        if unusable:
            said += f"; not usable, because they are empty or hold what no header can carry: {', '.join(unusable)}"
        if said != self._said:
            logger.log(logging.ERROR if self.state.message or unusable else logging.INFO, "%s", said)
            self._said = said


def _is_usable(value: bytes) -> bool:
    return _USABLE.fullmatch(value) is not None


def _read(folder: Path) -> dict[str, bytes]:
    """Return {name of a file: its content without a new line at the end}, all from the same moment.

    The kubelet replaces all files at once, by another target for the link `..data`; the old target then goes.

    Raises:
        OSError: the folder cannot be read.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        link = folder / "..data"
        place = Path(os.path.realpath(link)) if link.exists() else folder
        try:
            files = [each for each in sorted(place.iterdir()) if not each.name.startswith("..") and each.is_file()]
            return {each.name: each.read_bytes().rstrip(b"\r\n") for each in files}
        except FileNotFoundError:
            if attempt == _ATTEMPTS:
                raise
    raise AssertionError


class KeyCheck:
    """ASGI middleware that lets requests with a key pass, and answers others with 401.

    The scope of a request that passes has the name of its key under SCOPE_KEY.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys, on_refused: Callable[[], None]) -> None:
        self._app, self._keys, self._on_refused = app, keys, on_refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by the application, if it may ask."""
        if scope["type"] == "lifespan" or scope.get("path") in OPEN_PATHS:
            return await self._app(scope, receive, send)
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        try:
            name = self._keys.admit(sent)
        except RequestError as error:
            self._on_refused()
            await discard(receive)
            wrong = ', error="invalid_token"' if sent else ""
            return await error_response(error, {"WWW-Authenticate": _CHALLENGE + wrong})(scope, receive, send)
        await self._app({**scope, SCOPE_KEY: name}, receive, send)


def with_api_keys(document: dict[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI document that says that the API asks for a key."""
    schemes = {"apiKey": {"type": "http", "scheme": "bearer", "description": "An API key."}}
    components = {**document.get("components", {}), "securitySchemes": schemes}
    paths = {
        path: {
            method: {**operation, **({"security": []} if path in OPEN_PATHS else {})}
            for method, operation in methods.items()
        }
        for path, methods in document["paths"].items()
    }
    return {**document, "paths": paths, "components": components, "security": [{"apiKey": []}]}
