"""Reads texts as KServe's first protocol and Hugging Face's write them: a string, or an object for a pair."""

from typing import Any

from luthier_serving.answers import Text
from luthier_serving.errors import RequestError
from luthier_serving.replica.validation import (
    RequestLimits,
    check_fields,
    check_number_of_texts,
    check_text,
    json_type,
)

PAIR = 'a pair is {"text": "...", "text_pair": "..."}'
_FIELDS = frozenset({"text", "text_pair"})


def read_inputs(values: list[Any], field: str, limits: RequestLimits) -> list[Text]:
    """Return the texts or pairs of a list.

    Args:
        values: the list as JSON has it.
        field: its name, for errors.
        limits: what it may contain.

    Raises:
        RequestError: 413 for too many or too long ones, 422 for what is neither, or for both in one list.
    """
    check_number_of_texts(values, field, limits)
    texts = [read_input(value, f"{field}[{index}]", limits) for index, value in enumerate(values)]
    if len({type(text) for text in texts}) > 1:
        raise RequestError(f"{field} has single texts and pairs; send either, {PAIR}.", status=422)
    return texts


def read_input(value: Any, field: str, limits: RequestLimits) -> Text:
    """Return one text or pair.

    Raises:
        RequestError: 413 for one that is too long, 422 for what is neither.
    """
    if isinstance(value, str):
        check_text(value, field, limits)
        return value
    if not isinstance(value, dict):
        raise RequestError(f"{field} is {json_type(value)}, not a text; {PAIR}.", status=422)
    check_fields(value, _FIELDS, PAIR, field)
    if "text" not in value:
        raise RequestError(f"{field} has no text; {PAIR}.", status=422)
    for name, text in value.items():
        if not isinstance(text, str):
            raise RequestError(f"{field}.{name} is {json_type(text)}, not a string.", status=422)
        check_text(text, f"{field}.{name}", limits)
    return (value["text"], value["text_pair"]) if "text_pair" in value else value["text"]
