"""Parses the body of a prediction request, or says in one sentence what is wrong with it.

By hand and not by a pydantic model, because this is the hot path and every error is a sentence for people. Pure: no
HTTP objects, so that every kind of bad input is tested as a function call. Called by `http`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from luthier_serving.answers import Text
from luthier_serving.errors import RequestError

USAGE = 'send {"text": "..."} or {"texts": ["...", "..."]}'
# For each field of the first texts, the field of the second ones.
PAIR_FIELDS = {"text": "text_pair", "texts": "text_pairs"}


@dataclass(frozen=True)
class RequestLimits:
    """What one request may contain at most."""

    body_bytes: int
    texts: int
    text_characters: int


@dataclass(frozen=True)
class PredictRequest:
    """The texts of one request, or its pairs. A single one is answered with one object, a list with a list."""

    texts: Sequence[Text]
    single: bool


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


def parse_request(body: bytes, limits: RequestLimits) -> PredictRequest:
    """Return the texts of a body.

    Raises:
        RequestError: 400 for a body that is not JSON, 413 for one that is too large, 422 for wrong fields.
    """
    if len(body) > limits.body_bytes:
        raise body_too_large(limits)
    document = _parse_object(body)
    unknown = sorted(set(document) - {*PAIR_FIELDS, *PAIR_FIELDS.values()})
    if unknown:
        raise RequestError(f"Unknown field {unknown[0][:100]!r}; {USAGE}.", status=422)
    given = [field for field in PAIR_FIELDS if field in document]
    if len(given) != 1:
        raise RequestError(f"Give exactly one of the fields text and texts; {USAGE}.", status=422)
    [field] = given
    single = field == "text" and isinstance(document[field], str)
    first = _read_texts(document[field], field, limits, single=single)
    if len(document) == 1:
        return PredictRequest(first, single)
    return PredictRequest(_read_pairs(first, document, field, limits, single=single), single)


def _read_pairs(
    first: list[str], document: dict[str, Any], field: str, limits: RequestLimits, *, single: bool
) -> list[Text]:
    pair_field = PAIR_FIELDS[field]
    if pair_field not in document or len(document) != 2:
        [wrong, *_] = sorted(set(document) - {field, pair_field})
        raise RequestError(f"{wrong} does not go with {field}; send {field} with {pair_field}.", status=422)
    value = document[pair_field]
    if single != isinstance(value, str):
        wanted = "a string" if single else "a list of strings"
        raise RequestError(
            f"The field {pair_field} is {_json_type(value)}, not {wanted} like {field}; send both alike.", status=422
        )
    second = _read_texts(value, pair_field, limits, single=single)
    if len(first) != len(second):
        raise RequestError(
            f"{field} has {len(first)} texts and {pair_field} has {len(second)}; send as many of each.", status=422
        )
    return list(zip(first, second, strict=True))


def _read_texts(value: Any, field: str, limits: RequestLimits, *, single: bool) -> list[str]:
    if single:
        _check_text(value, field, limits)
        return [value]
    if not isinstance(value, list):
        wanted = "a string or a list of strings" if field == "text" else "a list of strings"
        raise RequestError(f"The field {field} is {_json_type(value)}, not {wanted}; {USAGE}.", status=422)
    return _check_list(value, field, limits)


def _parse_object(body: bytes) -> dict[str, Any]:
    if not body.strip():
        raise RequestError(f"The request has no body; {USAGE}.", status=400)
    try:
        document = json.loads(body)
    except UnicodeDecodeError:
        raise RequestError("The body is not UTF-8; encode JSON as UTF-8.", status=400) from None
    except json.JSONDecodeError as error:
        raise RequestError(f"The body is not JSON ({error.msg} at character {error.pos}).", status=400) from None
    except (ValueError, RecursionError):  # numbers with thousands of digits, brackets nested thousands deep
        raise RequestError(
            f"The body is JSON nested too deeply, or with too long a number; {USAGE}.", status=400
        ) from None
    if not isinstance(document, dict):
        raise RequestError(f"The body is {_json_type(document)}, not an object; {USAGE}.", status=422)
    return document


def _check_list(values: list[Any], field: str, limits: RequestLimits) -> list[str]:
    if not values:
        raise RequestError(f"The field {field} is an empty list; send at least one text.", status=422)
    if len(values) > limits.texts:
        raise RequestError(
            f"The field {field} has {len(values)} texts; send at most {limits.texts} per request.", status=413
        )
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise RequestError(f"{field}[{index}] is {_json_type(value)}, not a string.", status=422)
        _check_text(value, f"{field}[{index}]", limits)
    return values


def _check_text(text: str, field: str, limits: RequestLimits) -> None:
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


def _json_type(value: object) -> str:
    """Return JSON's name for the type of a value, with its article."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
