"""/predict: the server's own protocol. A text, a list, or pairs of texts; options beside them in the same object."""

from typing import Any

from luthier_serving.answers import Answer, ModelInfo, Row, Text
from luthier_serving.errors import RequestError
from luthier_serving.replica.predictor import ServedModel
from luthier_serving.replica.protocols.interface import (
    Call,
    HttpReply,
    HttpRequest,
    JsonProtocol,
    answered,
    check_model,
)
from luthier_serving.replica.protocols.options import read_options
from luthier_serving.replica.validation import (
    Json,
    RequestLimits,
    check_fields,
    check_list,
    check_text,
    json_type,
    parse_object,
)
from luthier_serving.tasks import OUTPUTS
from luthier_serving.tasks.options import NO_OPTIONS, Options

USAGE = 'send {"text": "..."} or {"texts": ["...", "..."]}'
# For each field of the first texts, the field of the second ones.
PAIR_FIELDS = {"text": "text_pair", "texts": "text_pairs"}
OPTIONS = frozenset({"top_k", "threshold", "thresholds", "truncate"})
MODEL = "model"
FIELDS = frozenset({*PAIR_FIELDS, *PAIR_FIELDS.values(), *OPTIONS, MODEL})


class Predict(JsonProtocol):
    """A single text is answered with one object, a list with a list. The body or the path may name an adapter."""

    def parse(self, request: HttpRequest, limits: RequestLimits, served: ServedModel) -> Call:
        """Return the texts of a body.

        Raises:
            RequestError: 400 for a body that is not JSON, 404 for another model, 413 for one that is too large, 422
                for wrong fields.
        """
        document = parse_object(request.body, limits, USAGE)
        check_fields(document, FIELDS, USAGE)
        model = _take_model(document) if MODEL in document else None
        model = model or request.path.get(MODEL)
        return _read_call(document, limits, check_model(model, None, served) if model else None)

    def render(self, call: Call, answer: Answer) -> HttpReply:
        """Return one result, or the list of them; a text that failed has a sentence instead of a prediction."""
        results = [
            _result(text, row, answer.model, call.options) for text, row in zip(call.texts, answer.rows, strict=True)
        ]
        if not call.single:
            return answered({"predictions": results}, answer)
        return answered(results[0], answer, 500 if answer.rows[0].error else 200)


def _take_model(document: Json) -> str | None:
    value = document.pop(MODEL)
    if value is not None and not isinstance(value, str):
        raise RequestError(f"The field model is {json_type(value)}, not a string.", status=422)
    return value or None


def _read_call(document: Json, limits: RequestLimits, adapter: str | None) -> Call:
    options = NO_OPTIONS
    if not OPTIONS.isdisjoint(document):
        options = read_options(document, OPTIONS)
        document = {name: value for name, value in document.items() if name not in OPTIONS}
    given = [field for field in PAIR_FIELDS if field in document]
    if len(given) != 1:
        raise RequestError(f"Give exactly one of the fields text and texts; {USAGE}.", status=422)
    [field] = given
    single = field == "text" and isinstance(document[field], str)
    first = _read_texts(document[field], field, limits, single=single)
    texts = first if len(document) == 1 else _pairs(first, document, field, limits, single=single)
    return Call(texts, single, options, adapter=adapter)


def _pairs(first: list[str], document: Json, field: str, limits: RequestLimits, *, single: bool) -> list[Text]:
    pair_field = PAIR_FIELDS[field]
    if pair_field not in document or len(document) != 2:
        [wrong, *_] = sorted(set(document) - {field, pair_field})
        raise RequestError(f"{wrong} does not go with {field}; send {field} with {pair_field}.", status=422)
    value = document[pair_field]
    if single != isinstance(value, str):
        wanted = "a string" if single else "a list of strings"
        raise RequestError(
            f"The field {pair_field} is {json_type(value)}, not {wanted} like {field}; send both alike.", status=422
        )
    second = _read_texts(value, pair_field, limits, single=single)
    if len(first) != len(second):
        raise RequestError(
            f"{field} has {len(first)} texts and {pair_field} has {len(second)}; send as many of each.", status=422
        )
    return list(zip(first, second, strict=True))


def _read_texts(value: Any, field: str, limits: RequestLimits, *, single: bool) -> list[str]:
    if single:
        check_text(value, field, limits)
        return [value]
    if not isinstance(value, list):
        wanted = "a string or a list of strings" if field == "text" else "a list of strings"
        raise RequestError(f"The field {field} is {json_type(value)}, not {wanted}; {USAGE}.", status=422)
    return check_list(value, field, limits)


def _result(text: Text, row: Row, model: ModelInfo, options: Options) -> Json:
    inputs = {"input_text": text} if isinstance(text, str) else {"input_text": text[0], "input_text_pair": text[1]}
    if row.error is not None:
        return {**inputs, "error": row.error, "version": model.version}
    result = OUTPUTS[model.task].result(inputs["input_text"], row.values, model, options)
    cut = {"truncated_tokens": row.cut_tokens} if row.cut_tokens else {}
    return {**inputs, **result, **cut, "version": model.version}
