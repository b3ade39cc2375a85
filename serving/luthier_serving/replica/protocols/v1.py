"""KServe's first protocol, of TensorFlow Serving: `instances` in, `predictions` out, at /v1/models/<model>:predict."""

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
from luthier_serving.replica.protocols.texts import read_inputs
from luthier_serving.replica.validation import (
    Json,
    RequestLimits,
    check_fields,
    json_type,
    parse_object,
)
from luthier_serving.tasks import OUTPUTS

USAGE = 'send {"instances": ["...", "..."]}'
_FIELDS = frozenset({"instances"})


class V1(JsonProtocol):
    """A list is answered with a list; it has no options."""

    def parse(self, request: HttpRequest, limits: RequestLimits, served: ServedModel) -> Call:
        """Return the texts of a body.

        Raises:
            RequestError: 400 for a body that is not JSON, 404 for another model, 413 for one that is too large, 422
                for wrong fields.
        """
        adapter = check_model(request.path["model"], None, served)
        document = parse_object(request.body, limits, USAGE)
        check_fields(document, _FIELDS, USAGE)
        if "instances" not in document:
            raise RequestError(f"There is no field instances; {USAGE}.", status=422)
        instances = document["instances"]
        if not isinstance(instances, list):
            raise RequestError(f"The field instances is {json_type(instances)}, not a list; {USAGE}.", status=422)
        return Call(read_inputs(instances, "instances", limits), adapter=adapter)

    def render(self, call: Call, answer: Answer) -> HttpReply:
        """Return one prediction for each text, in order."""
        rows = zip(call.texts, answer.rows, strict=True)
        return answered({"predictions": [_prediction(text, row, answer.model) for text, row in rows]}, answer)


def _prediction(text: Text, row: Row, model: ModelInfo) -> Json:
    if row.error is not None:
        return {"error": row.error}
    cut = {"truncated_tokens": row.cut_tokens} if row.cut_tokens else {}
    return {**_answer(text if isinstance(text, str) else text[0], row, model), **cut}


def _answer(text: str, row: Row, model: ModelInfo) -> dict[str, Any]:
    """Return labels with their scores, whatever the task."""
    output = OUTPUTS[model.task]
    scored = output.scored(row, model)
    if output.form == "entities":
        return {
            "entities": [
                {"label": each.label, "score": each.score, "text": text[each.start : each.end], "start": each.start,
                 "end": each.end} for each in scored
            ]
        }  # fmt: skip
    if output.form == "labels":
        result = output.result(text, row.values, model)
        assigned = [each for each in scored if each.label in result["prediction"]]
        return {
            "labels": [{"label": each.label, "score": each.score} for each in assigned],
            "probabilities": result["probabilities"],
        }
    best = {"label": scored[0].label, "score": scored[0].score}
    if output.form == "number":
        return best
    return {**best, "probabilities": output.result(text, row.values, model)["probabilities"]}
