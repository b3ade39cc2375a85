"""What every protocol is given and returns."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from luthier_serving.answers import Answer, ModelInfo, Text
from luthier_serving.errors import RequestError
from luthier_serving.replica.predictor import ServedModel
from luthier_serving.replica.validation import RequestLimits, check_content_type
from luthier_serving.tasks.options import NO_OPTIONS, Options

VERSION_HEADER = "X-Luthier-Version"
DIGEST_HEADER = "X-Luthier-Digest"


class HttpRequest(NamedTuple):
    """A request over HTTP, read to its end.

    Attributes:
        body: all of it.
        headers: by names in lower case.
        path: what the path names: `model`, `version`.
    """

    body: bytes
    headers: Mapping[str, str] = {}
    path: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks of the model.

    Attributes:
        texts: of the request, or its pairs.
        single: whether it was one text and no list of texts.
        options: what is asked of the answer.
        version: the version that is to answer, None for any.
        adapter: the adapter that is to answer, None for the model itself.
    """

    texts: Sequence[Text]
    single: bool = False
    options: Options = NO_OPTIONS
    version: str | None = None
    adapter: str | None = None


class HttpReply(NamedTuple):
    """What goes out over HTTP."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}
    media_type: str = "application/json"


RequestT = TypeVar("RequestT", contravariant=True)
ReplyT = TypeVar("ReplyT", covariant=True)
CallT = TypeVar("CallT", bound=Call)


class WireProtocol(Protocol[RequestT, CallT, ReplyT]):
    """One protocol: how a request is written, and an answer."""

    def parse(self, request: RequestT, limits: RequestLimits, served: ServedModel) -> CallT:
        """Return what a request asks.

        Args:
            request: as it came in.
            limits: what it may contain.
            served: what it may name.

        Raises:
            RequestError: with a status of 400 to 499.
        """

    def render(self, call: CallT, answer: Answer) -> ReplyT:
        """Return the answer as it goes out.

        Raises:
            RequestError: the protocol has no way to say that one of several texts failed, and one did.
        """

    def error(self, error: RequestError) -> ReplyT:
        """Return an error as it goes out: one sentence."""


class HttpProtocol(WireProtocol[HttpRequest, Any, HttpReply], Protocol):
    """A protocol over HTTP."""

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Refuse a request before its body is read.

        Raises:
            RequestError: 415, another media type.
        """


def json_reply(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpReply:
    """Return a JSON document as it goes out."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return HttpReply(status, body, headers or {})


def answered(document: Any, answer: Answer, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpReply:
    """Return an answer of the model as JSON, with the version that gave it."""
    return json_reply(document, status, {**version_headers(answer.model), **(headers or {})})


def version_headers(model: ModelInfo) -> dict[str, str]:
    """Return the headers that name the version that answered."""
    headers = {VERSION_HEADER: model.version}
    return {**headers, DIGEST_HEADER: model.digest} if model.digest else headers


def json_error(error: RequestError) -> HttpReply:
    """Return an error as all protocols over HTTP have it: `{"error": "<one sentence>"}`."""
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if error.closes:
        headers["Connection"] = "close"
    return json_reply({"error": str(error)}, error.status, headers)


class JsonProtocol:
    """What the protocols over HTTP have in common."""

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Refuse a request that says that it is no JSON.

        Raises:
            RequestError: 415.
        """
        check_content_type(headers.get("content-type"))

    def error(self, error: RequestError) -> HttpReply:
        """Return an error as it goes out."""
        return json_error(error)


def check_model(name: str, version: str | None, served: ServedModel) -> str | None:
    """Return the adapter that a model's name asks for, None for the model itself; refuse what is not served.

    Raises:
        RequestError: 404, there is no such model or version; the sentence names those that there are.
    """
    adapter = None if name == served.name else _adapter_of(name, served)
    versions = served.versions_of(adapter)
    if version and version not in versions:
        known = ", ".join(versions) or "none"
        raise RequestError(
            f"The model {name!r} has no version {version[:60]!r} in service; in service: {known}.", status=404
        )
    return adapter


def _adapter_of(name: str, served: ServedModel) -> str:
    model, _, adapter = name.partition(":")
    if model == served.name and adapter in served.adapters:
        return adapter
    there = " and ".join(repr(each) for each in served.names)
    raise RequestError(f"There is no model {name[:100]!r} here; this server has {there}.", status=404)


def check_rows(answer: Answer) -> None:
    """Refuse to answer some texts of several, for protocols that cannot say which of them failed.

    Raises:
        RequestError: 500.
    """
    for number, row in enumerate(answer.rows, 1):
        if row.error is not None:
            which = f"Text {number} of {len(answer.rows)}: " if len(answer.rows) > 1 else ""
            raise RequestError(which + row.error)
