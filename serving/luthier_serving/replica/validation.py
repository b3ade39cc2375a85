"""A request's body: either the texts it asks about, or one sentence that says what is wrong with it.

Written by hand and not as a pydantic model, because this is the hot path and every rejection is a sentence for people.
Pure: no HTTP objects, so that the whole table of bad input is tested as functions. Called by `http`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from luthier_serving.answers import Text
from luthier_serving.errors import RequestError

EXPECTED = 'send {"text": "..."} or {"texts": ["...", "..."]}'
# The field of the second texts, for each field of the first.
PAIR_FIELDS = {"text": "text_pair", "texts": "text_pairs"}


@dataclass(frozen=True)
class Limits:
    """What one request may hold at most."""

    body_bytes: int
    texts: int
    text_characters: int


@dataclass(frozen=True)
class Question:
    """The texts of one request, or its pairs. A single one is answered with one object, a list with a list."""

    texts: Sequence[Text]
    single: bool


def check_content_type(value: str | None) -> None:
    """Refuse a body that says it is something other than JSON; one that says nothing is taken for JSON.

    Raises:
        RequestError: 415.
    """
    media = (value or "application/json").split(";", 1)[0].strip().lower()
    if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
        raise RequestError(f"Content-Type is {media[:100]!r}; send application/json.", status=415)


def body_too_large(limits: Limits) -> RequestError:
    """Return the answer to a body that is longer than allowed."""
    return RequestError(
        f"The body is larger than {limits.body_bytes} bytes; send fewer or shorter texts per request.", status=413
    )


def parse_question(body: bytes, limits: Limits) -> Question:
    """Return the texts of a body.

    Raises:
        RequestError: 400 for what is not a JSON object, 413 for too much, 422 for wrong fields.
    """
    if len(body) > limits.body_bytes:
        raise body_too_large(limits)
    document = _parse_object(body)
    unknown = sorted(set(document) - {*PAIR_FIELDS, *PAIR_FIELDS.values()})
    if unknown:
        raise RequestError(f"Unknown field {unknown[0][:100]!r}; {EXPECTED}.", status=422)
    given = [field for field in PAIR_FIELDS if field in document]
    if len(given) != 1:
        raise RequestError(f"Give exactly one of the fields text and texts; {EXPECTED}.", status=422)
    [field] = given
    single = field == "text" and isinstance(document[field], str)
    first = _read_texts(document[field], field, limits, single=single)
    if len(document) == 1:
        return Question(first, single)
    return Question(_read_pairs(first, document, field, limits, single=single), single)


def _read_pairs(first: list[str], document: dict[str, Any], field: str, limits: Limits, *, single: bool) -> list[Text]:
    pair_field = PAIR_FIELDS[field]
    if pair_field not in document or len(document) != 2:
        [wrong, *_] = sorted(set(document) - {field, pair_field})
        raise RequestError(f"{wrong} does not go with {field}; send {field} with {pair_field}.", status=422)
    value = document[pair_field]
    if single != isinstance(value, str):
        wanted = "a string" if single else "a list of strings"
        raise RequestError(
            f"The field {pair_field} is {_json_type(value)}, not {wanted}, which {field} is.", status=422
        )
    second = _read_texts(value, pair_field, limits, single=single)
    if len(first) != len(second):
        raise RequestError(
            f"{field} holds {len(first)} and {pair_field} {len(second)} texts; send one of {pair_field} for each of "
            f"{field}.",
            status=422,
        )
    return list(zip(first, second, strict=True))


def _read_texts(value: Any, field: str, limits: Limits, *, single: bool) -> list[str]:
    if single:
        _check_text(value, field, limits)
        return [value]
    if not isinstance(value, list):
        wanted = "a string or a list of strings" if field == "text" else "a list of strings"
        raise RequestError(f"The field {field} is {_json_type(value)}, not {wanted}; {EXPECTED}.", status=422)
    return _check_list(value, field, limits)


def _parse_object(body: bytes) -> dict[str, Any]:
    if not body.strip():
        raise RequestError(f"The request has no body; {EXPECTED}.", status=400)
    try:
        document = json.loads(body)
    except UnicodeDecodeError:
        raise RequestError("The body is not UTF-8; encode JSON as UTF-8.", status=400) from None
    except json.JSONDecodeError as error:
        raise RequestError(f"The body is not JSON ({error.msg} at character {error.pos}).", status=400) from None
    except (ValueError, RecursionError):  # numbers of thousands of digits, brackets nested thousands deep
        raise RequestError(f"The body is JSON that nobody can read; {EXPECTED}.", status=400) from None
    if not isinstance(document, dict):
        raise RequestError(f"The body is {_json_type(document)}, not an object; {EXPECTED}.", status=422)
    return document


def _check_list(values: list[Any], field: str, limits: Limits) -> list[str]:
    if not values:
        raise RequestError(f"The field {field} is an empty list; send at least one text.", status=422)
    if len(values) > limits.texts:
        raise RequestError(
            f"The field {field} holds {len(values)} texts; send at most {limits.texts} per request.", status=413
        )
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise RequestError(f"{field}[{index}] is {_json_type(value)}, not a string.", status=422)
        _check_text(value, f"{field}[{index}]", limits)
    return values


def _check_text(text: str, place: str, limits: Limits) -> None:
    if not text or text.isspace():
        raise RequestError(f"{place} is empty; send a text.", status=422)
    if len(text) > limits.text_characters:
        raise RequestError(
            f"{place} has {len(text)} characters; a text may have at most {limits.text_characters}.", status=413
        )
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RequestError(
                f"{place} holds half of a surrogate pair, which is no Unicode text.", status=422
            ) from None


def _json_type(value: object) -> str:
    """Return what JSON calls the type of a value, with its article."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
