"""The description of the protocols beside /predict: their schemas by pydantic, their paths by hand.

Part of `openapi`, which gives the limits and the model. Every label has its score beside it in all of them.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, conlist, create_model

from luthier_serving.answers import ModelInfo
from luthier_serving.tasks import OUTPUTS
from luthier_serving.tasks.options import TASK_OPTIONS
from luthier_serving.tasks.probabilities import Probability

Example = dict[str, Any]
MODEL_PATH = {
    "name": "model",
    "in": "path",
    "required": True,
    "description": "The name of the model, or NAME:adapter.",
    "schema": {"type": "string"},
}
VERSION_PATH = {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}
TEXT = "What a lovely film."
_TOP_K = (int | None, Field(None, ge=1, description="So many of the most probable labels at most."))
_TRUNCATE = (bool | None, Field(None, description="false: a text that is too long gets 413."))
# What may be asked of the answer, by protocol; what of it only some tasks have is left out for the others.
_HUGGING_FACE: dict[str, Any] = {
    "top_k": _TOP_K,
    "function_to_apply": (Literal["softmax", "sigmoid", "none"] | None, None),
    "aggregation_strategy": (Literal["first", "simple", "none"] | None, None),
    "ignore_labels": (list[str] | None, Field(None, description="Labels of words to leave out; default O.")),
    "truncation": _TRUNCATE,
}
_INFER: dict[str, Any] = {
    "top_k": _TOP_K,
    "threshold": (Probability | None, Field(None, description="Labels are assigned from this probability on.")),
    "truncate": _TRUNCATE,
    "binary_data_output": (bool | None, Field(None, description="Outputs go behind the JSON, raw.")),
}


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LabelScore(BaseModel):
    """A label and its score."""

    label: str
    score: float


class LabelledText(LabelScore):
    """A labelled part of a text."""

    text: str
    start: int = Field(ge=0, description="Its first character in the text.")
    end: int = Field(ge=0, description="The character after its last.")


class V1Label(LabelScore):
    """The most likely label of a text, or the number that the model estimates and its name."""

    probabilities: dict[str, Probability] | None = Field(default=None, description="The probability of each label.")
    truncated_tokens: int | None = Field(default=None, description="Tokens of the text that the model did not read.")


class V1Labels(BaseModel):
    """The labels that are assigned to a text."""

    labels: list[LabelScore]
    probabilities: dict[str, Probability]
    truncated_tokens: int | None = None


class V1Entities(BaseModel):
    """The labelled parts of a text."""

    entities: list[LabelledText]
    truncated_tokens: int | None = None


class V1Failure(BaseModel):
    """A text for which the model failed."""

    error: str


class V1Response(BaseModel):
    """One prediction for each instance, in order."""

    predictions: list[V1Label | V1Labels | V1Entities | V1Failure]


class EntityGroup(BaseModel):
    """A labelled part of a text, as transformers' pipelines name it."""

    entity_group: str | None = None
    entity: str | None = Field(default=None, description="Instead of entity_group, with aggregation_strategy none.")
    score: Probability
    word: str
    start: int
    end: int


class HuggingFaceResponse(RootModel[list[list[LabelScore]] | list[EntityGroup] | list[list[EntityGroup]]]):
    """A list of labels for each text, the most probable first; or the entities of the text, or of each of several."""


class RequestedOutput(_Sent):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] | None = Field(default=None, description="binary_data: whether it is to be raw.")


class InferOutput(BaseModel):
    """An output. What stands in the columns of `probabilities` is in its parameter `labels`."""

    name: Literal["label", "score", "assigned", "probabilities", "entities"]
    datatype: Literal["BYTES", "FP32", "BOOL"]
    shape: list[int]
    data: list[str | float | bool] | None = Field(default=None, description="Absent where it is raw.")
    parameters: dict[str, Any] | None = None


class InferResponse(BaseModel):
    """The outputs for all texts."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, Any] | None = Field(
        default=None, description="truncated_tokens: tokens of all texts together that the model did not read."
    )
    outputs: list[InferOutput]


class TensorMetadata(BaseModel):
    """An input or output; -1 stands for any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """Inputs and outputs of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    properties: dict[str, str]


class ServerMetadata(BaseModel):
    """Which server this is."""

    name: str
    version: str
    extensions: list[str]


class Models(BaseModel):
    """The names of the models."""

    models: list[str]


class ModelReady(BaseModel):
    """A model answers."""

    name: str
    ready: bool


class Live(BaseModel):
    """The process lives."""

    live: bool


class ReadyNow(BaseModel):
    """A model answers."""

    ready: bool


ANSWERS: list[type[BaseModel]] = [
    V1Response, HuggingFaceResponse, InferResponse, ModelMetadata, ServerMetadata, Models, ModelReady, Live, ReadyNow
]  # fmt: skip


def request_schemas(text: Any, max_texts: int, model: ModelInfo | None) -> list[type[BaseModel]]:
    """Return the bodies that are taken, with the limits in force.

    Args:
        text: type of a text.
        max_texts: in one request.
        model: the model that answers, None while none does.
    """
    pair = create_model("TextPair", __base__=_Sent, text=(text, ...), text_pair=(text, ...))
    one: Any = (text | pair) if model is None else pair if model.pairs else text
    several = conlist(one, min_length=1, max_length=max_texts)
    single: Any = Literal["text"]
    names: Any = Literal["text", "text_pair"] if model is None or model.pairs else single
    datatype: Any = Literal["BYTES"]
    data: Any = conlist(text, min_length=1, max_length=max_texts)
    column: Any = conlist(conlist(text, min_length=1, max_length=1), min_length=1, max_length=max_texts)
    infer_input = create_model(
        "InferInput",
        __base__=_Sent,
        name=(names, ...),
        datatype=(datatype, ...),
        shape=(conlist(int, min_length=1, max_length=2), ...),
        data=(data | column, Field(description="Only where it goes behind the JSON, raw, may it be absent.")),
        parameters=(dict[str, Any] | None, Field(None, description="binary_data_size: size of the raw data.")),
    )
    return [
        create_model("V1Request", __base__=_Sent, instances=(several, ...)),
        create_model(
            "HuggingFaceRequest",
            __base__=_Sent,
            inputs=(one | several, ...),
            parameters=(_parameters("HuggingFaceParameters", _HUGGING_FACE, model), None),
        ),
        create_model(
            "InferRequest",
            __base__=_Sent,
            id=(str | None, None),
            model_name=(str | None, Field(None, description="The model of the path, if anything.")),
            parameters=(_parameters("InferParameters", _INFER, model), None),
            inputs=(conlist(infer_input, min_length=1, max_length=2), ...),
            outputs=(list[RequestedOutput] | None, None),
        ),
    ]


def _parameters(name: str, fields: dict[str, Any], model: ModelInfo | None) -> Any:
    """Return the type of a protocol's parameters: those of the model, or all."""
    absent = set() if model is None else {*TASK_OPTIONS} - OUTPUTS[model.task].options
    known = {field: value for field, value in fields.items() if field not in absent}
    return create_model(name, __base__=_Sent, __doc__="What is asked of the answer.", **known) | None


def examples_of(protocol: str, model: ModelInfo | None) -> dict[str, Any]:
    """Return an example of a body of v1, v2 or hugging_face, for OpenAPI."""
    pairs = bool(model and model.pairs)
    one: Any = {"text": TEXT, "text_pair": "A film is praised."} if pairs else TEXT
    inputs = [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [TEXT]}]
    if pairs:
        inputs.append({"name": "text_pair", "datatype": "BYTES", "shape": [1], "data": ["A film is praised."]})
    scores = model is None or OUTPUTS[model.task].form in ("label", "labels")
    body: Example = {
        "v1": {"instances": [one]},
        "v2": {"inputs": inputs},
        "hugging_face": {"inputs": one} | ({"parameters": {"top_k": 1}} if scores else {}),
    }[protocol]
    return {"one": {"summary": "one pair" if pairs else "one text", "value": body}}
