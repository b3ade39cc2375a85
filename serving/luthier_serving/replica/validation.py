"""Checks that every protocol makes of a request's body, or one sentence that says what is wrong with it.

By hand and not by pydantic models, because this is the hot path and every error is a sentence for people. Pure: no
HTTP objects, so that every kind of bad input is tested as a function call. Called by the modules of `protocols`.
"""

import json
from dataclasses import dataclass
from typing import Any

from luthier_serving.errors import RequestError

Json = dict[str, Any]


@dataclass(frozen=True)
class RequestLimits:
    """What one request may contain at most."""

    body_bytes: int
    texts: int
    text_characters: int


def check_content_type(value: str | None) -> None:
    """Reject any media type but JSON; a body without a Content-Type is taken for JSON.

    Raises:
        RequestError: 415.
    """
    media_type = (value or "application/json").split(";", 1)[0].strip().lower()
    is_json = media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
    if not is_json:
        raise RequestError(f"Content-Type is {media_type[:100]!r}; send application/json.", status=415)


def body_too_large(limits: RequestLimits, *, closes: bool = False) -> RequestError:
    """Return the error for a body over the limit; `closes` if the rest of it is not read."""
    error = RequestError(
        f"The body is larger than {limits.body_bytes} bytes; send fewer or shorter texts per request.", status=413
    )
    error.closes = closes
    return error


def parse_object(body: bytes, limits: RequestLimits, usage: str) -> Json:
    """Return the JSON object of a body.

    Args:
        body: all of it.
        limits: what it may contain.
        usage: what to send, for the errors.

    Raises:
        RequestError: 400 for a body that is not JSON, 413 for one that is too large, 422 for no object.
    """
    if len(body) > limits.body_bytes:
        raise body_too_large(limits)
    if not body.strip():
        raise RequestError(f"The request has no body; {usage}.", status=400)
    try:
        document = json.loads(body)
    except UnicodeDecodeError:
        raise RequestError("The body is not UTF-8; encode JSON as UTF-8.", status=400) from None
    except json.JSONDecodeError as error:
        raise RequestError(f"The body is not JSON ({error.msg} at character {error.pos}).", status=400) from None
    except (ValueError, RecursionError):  # numbers with thousands of digits, brackets nested thousands deep
        raise RequestError(
            f"The body is JSON nested too deeply, or with too long a number; {usage}.", status=400
        ) from None
    if not isinstance(document, dict):
        raise RequestError(f"The body is {json_type(document)}, not an object; {usage}.", status=422)
    return document


def check_fields(document: Json, known: frozenset[str], usage: str, within: str = "") -> None:
    """Refuse fields that nobody reads, so that a typing error is noticed.

    Args:
        document: an object of the body.
        known: names of its fields.
        usage: what to send.
        within: where in the body the object is.

    Raises:
        RequestError: 422.
    """
    if unknown := document.keys() - known:
        where = f" in {within}" if within else ""
        raise RequestError(f"Unknown field {min(unknown)[:100]!r}{where}; {usage}.", status=422)


def check_list(values: list[Any], field: str, limits: RequestLimits) -> list[str]:
    """Return a list of texts.

    Raises:
        RequestError: 413 for too many or too long ones, 422 for what is no text.
    """
    check_number_of_texts(values, field, limits)
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise RequestError(f"{field}[{index}] is {json_type(value)}, not a string.", status=422)
        check_text(value, f"{field}[{index}]", limits)
    return values


def check_number_of_texts(values: list[Any], field: str, limits: RequestLimits) -> None:
    """Refuse no text and too many.

    Raises:
        RequestError: 413 or 422.
    """
    if not values:
        raise RequestError(f"The field {field} is an empty list; send at least one text.", status=422)
    if len(values) > limits.texts:
        raise RequestError(
            f"The field {field} has {len(values)} texts; send at most {limits.texts} per request.", status=413
        )


def check_text(text: str, field: str, limits: RequestLimits) -> None:
    """Refuse a text that is empty, too long or not valid Unicode.

    Raises:
        RequestError: 413 or 422.
    """
    if not text or text.isspace():
        raise RequestError(f"{field} is empty; send a text.", status=422)
    if len(text) > limits.text_characters:
        raise RequestError(
            f"{field} has {len(text)} characters; a text may have at most {limits.text_characters}.", status=413
        )
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RequestError(
                f"{field} contains half of a surrogate pair, which is not valid Unicode.", status=422
            ) from None


def json_type(value: object) -> str:
    """Return JSON's name for the type of a value, with its article."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
