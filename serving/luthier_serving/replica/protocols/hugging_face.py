"""The task API of Hugging Face: `inputs` and `parameters` in, labels with scores out, at / and /models/<model>.

Answers are those that huggingface_hub's InferenceClient reads: of text-classification a list for each text, also for a
single one; of token-classification a list for each text of a list, and the entities themselves for a single one.
"""

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
    check_rows,
)
from luthier_serving.replica.protocols.options import read_options
from luthier_serving.replica.protocols.texts import read_input, read_inputs
from luthier_serving.replica.validation import (
    Json,
    RequestLimits,
    check_fields,
    json_type,
    parse_object,
)
from luthier_serving.tasks import OUTPUTS
from luthier_serving.tasks.options import NO_OPTIONS, Options

USAGE = 'send {"inputs": "..."} or {"inputs": ["...", "..."], "parameters": {...}}'
# The body of an answer is a list, which has no place for it.
TRUNCATED_HEADER = "X-Luthier-Truncated-Tokens"
# `truncation` is how its pipelines call `truncate`.
OPTIONS = frozenset({"top_k", "function_to_apply", "aggregation_strategy", "ignore_labels"})
PARAMETERS = OPTIONS | {"truncation"}
_FIELDS = frozenset({"inputs", "parameters"})


class HuggingFace(JsonProtocol):
    """What the model answers, as the pipelines of transformers do."""

    def parse(self, request: HttpRequest, limits: RequestLimits, served: ServedModel) -> Call:
        """Return the texts and options of a body.

        Raises:
            RequestError: 400 for a body that is not JSON, 404 for another model, 413 for one that is too large, 422
                for wrong fields or parameters.
        """
        adapter = check_model(request.path["model"], None, served) if "model" in request.path else None
        document = parse_object(request.body, limits, USAGE)
        check_fields(document, _FIELDS, USAGE)
        if "inputs" not in document:
            raise RequestError(f"There is no field inputs; {USAGE}.", status=422)
        inputs = document["inputs"]
        options = _options(document.get("parameters"))
        if isinstance(inputs, list):
            return Call(read_inputs(inputs, "inputs", limits), options=options, adapter=adapter)
        return Call([read_input(inputs, "inputs", limits)], single=True, options=options, adapter=adapter)

    def render(self, call: Call, answer: Answer) -> HttpReply:
        """Return a list for each text.

        Raises:
            RequestError: 500, the model failed on one of them.
        """
        check_rows(answer)
        lists = [
            _scored(text, row, answer.model, call.options) for text, row in zip(call.texts, answer.rows, strict=True)
        ]
        cut = sum(row.cut_tokens for row in answer.rows)
        flat = call.single and OUTPUTS[answer.model.task].form == "entities"
        return answered(lists[0] if flat else lists, answer, headers={TRUNCATED_HEADER: str(cut)} if cut else {})


def _options(parameters: Any) -> Options:
    if parameters is None:
        return NO_OPTIONS
    if not isinstance(parameters, dict):
        raise RequestError(f"The field parameters is {json_type(parameters)}, not an object; {USAGE}.", status=422)
    usage = f"the parameters are {', '.join(sorted(PARAMETERS))}"
    check_fields(parameters, PARAMETERS, usage, "parameters")
    renamed = {("truncate" if name == "truncation" else name): value for name, value in parameters.items()}
    return read_options(renamed, OPTIONS | {"truncate"})


def _scored(text: Text, row: Row, model: ModelInfo, options: Options) -> list[Json]:
    output = OUTPUTS[model.task]
    scored = output.scored(row, model, options)
    if output.form != "entities":
        return [{"label": each.label, "score": each.score} for each in scored]
    first = text if isinstance(text, str) else text[0]
    name = "entity" if options.aggregation_strategy == "none" else "entity_group"
    return [
        {name: each.label, "score": each.score, "word": first[each.start : each.end], "start": each.start,
         "end": each.end} for each in scored
    ]  # fmt: skip
