"""The tensors of the Open Inference Protocol: texts come in as BYTES; labels, scores and probabilities go out.

The same over HTTP and gRPC, whose modules read and write them in their own way. Raw tensors have the layout of the
protocol's binary extension: numbers in little-endian order, and each element of BYTES after its length in 4 bytes.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from luthier_serving.answers import Answer, ModelInfo, Text
from luthier_serving.errors import RequestError
from luthier_serving.replica.protocols.interface import Call, check_rows
from luthier_serving.replica.validation import RequestLimits, check_list, check_number_of_texts
from luthier_serving.tasks import OUTPUTS

Datatype = Literal["BYTES", "FP32", "BOOL"]
TEXT, TEXT_PAIR = "text", "text_pair"
INPUTS = f"{TEXT}, and {TEXT_PAIR} for a model of pairs"
OPTIONS = frozenset({"top_k", "threshold", "truncate"})
_DTYPES = {"FP32": "<f4", "BOOL": "?"}
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class InferCall(Call):
    """A request for inference.

    Attributes:
        model: name of the model.
        id: goes back with the answer.
        outputs: {output that is asked for: whether as raw bytes}; empty for all.
        raw: whether outputs go back as raw bytes where `outputs` does not say.
    """

    model: str = ""
    id: str = ""
    outputs: Mapping[str, bool] = field(default_factory=dict)
    raw: bool = False


class InputTensor(NamedTuple):
    """An input; its elements are strings, or bytes that should be UTF-8."""

    name: str
    datatype: str
    shape: Sequence[Any]
    elements: Sequence[Any]


class Tensor(NamedTuple):
    """An output; `data` has its elements in row-major order."""

    name: str
    datatype: Datatype
    shape: list[int]
    data: list[Any]
    parameters: Mapping[str, str] = {}


class Described(NamedTuple):
    """An input or output in the description of a model; -1 stands for any size."""

    name: str
    datatype: Datatype
    shape: list[int]


def texts_of(inputs: Sequence[InputTensor], limits: RequestLimits) -> Sequence[Text]:
    """Return the texts of a request, or its pairs.

    Raises:
        RequestError: 413 for too many or too long ones, 422 for other inputs than there are.
    """
    found: dict[str, list[str]] = {}
    for tensor in inputs:
        if tensor.name not in (TEXT, TEXT_PAIR):
            raise RequestError(f"There is no input {tensor.name[:60]!r}; the inputs are {INPUTS}.", status=422)
        if tensor.name in found:
            raise RequestError(f"The input {tensor.name} comes twice.", status=422)
        found[tensor.name] = _texts(tensor, limits)
    if TEXT not in found:
        raise RequestError(f"There is no input {TEXT}; the inputs are {INPUTS}.", status=422)
    if TEXT_PAIR not in found:
        return found[TEXT]
    first, second = found[TEXT], found[TEXT_PAIR]
    if len(first) != len(second):
        raise RequestError(
            f"{TEXT} has {len(first)} texts and {TEXT_PAIR} has {len(second)}; send as many of each.", status=422
        )
    return list(zip(first, second, strict=True))


def _texts(tensor: InputTensor, limits: RequestLimits) -> list[str]:
    name = tensor.name
    if tensor.datatype != "BYTES":
        raise RequestError(f"The input {name} is {tensor.datatype[:20]!r}; texts are BYTES.", status=422)
    elements = list(tensor.elements)
    check_number_of_texts(elements, name, limits)
    count = len(elements)
    if list(tensor.shape) not in ([count], [count, 1]):
        raise RequestError(
            f"The input {name} has {count} elements and the shape {str(list(tensor.shape))[:60]}; the shape of texts "
            f"is [{count}] or [{count}, 1].",
            status=422,
        )
    return check_list([_decoded(each, f"{name}[{at}]") for at, each in enumerate(elements)], name, limits)


def _decoded(element: Any, where: str) -> Any:
    if not isinstance(element, bytes):
        return element
    try:
        return element.decode()
    except UnicodeDecodeError:
        raise RequestError(f"{where} is not UTF-8; encode texts as UTF-8.", status=422) from None


def elements_of(raw: bytes | memoryview, name: str, limits: RequestLimits) -> list[bytes]:
    """Return the elements of raw BYTES; `name` is said in errors.

    Raises:
        RequestError: 413 for too many, 422 for lengths that do not match.
    """
    elements: list[bytes] = []
    at = 0
    while at < len(raw):
        end = at + _LENGTH.size
        size = _LENGTH.unpack_from(raw, at)[0] if end <= len(raw) else len(raw)
        if end + size > len(raw):
            raise RequestError(
                f"The raw bytes of {name} end inside an element; each is 4 bytes of length and the text.", status=422
            )
        if len(elements) == limits.texts:
            raise RequestError(f"The input {name} has more than {limits.texts} texts; send fewer.", status=413)
        elements.append(bytes(raw[end : end + size]))
        at = end + size
    return elements


def raw_bytes(tensor: Tensor) -> bytes:
    """Return an output as raw bytes."""
    if tensor.datatype != "BYTES":
        return np.array(tensor.data, dtype=_DTYPES[tensor.datatype]).tobytes()
    encoded = [text.encode() for text in tensor.data]
    return b"".join(part for text in encoded for part in (_LENGTH.pack(len(text)), text))


def outputs_of(call: InferCall, answer: Answer) -> list[Tensor]:
    """Return the outputs that a request asks for.

    Raises:
        RequestError: 422 for one that there is not; 500 if the model failed on a text.
    """
    check_rows(answer)
    outputs = {tensor.name: tensor for tensor in _tensors(call, answer)}
    for name in call.outputs:
        if name not in outputs:
            raise RequestError(
                f"There is no output {name[:60]!r}; the outputs of {answer.model.task} are {', '.join(outputs)}.",
                status=422,
            )
    return [outputs[name] for name in call.outputs] if call.outputs else list(outputs.values())


def cut_tokens(answer: Answer) -> int:
    """Return how many tokens of all texts together the model did not read."""
    return sum(row.cut_tokens for row in answer.rows)


def _tensors(call: InferCall, answer: Answer) -> list[Tensor]:
    model, options, rows = answer.model, call.options, answer.rows
    output, count = OUTPUTS[model.task], len(answer.rows)
    if output.form == "entities":
        results = [
            output.result(text if isinstance(text, str) else text[0], row.values, model, options)["prediction"]
            for text, row in zip(call.texts, rows, strict=True)
        ]
        lists = [
            [{"label": each["label"], "score": each["confidence"], **_place(each)} for each in result]
            for result in results
        ]
        return [Tensor("entities", "BYTES", [count], [json.dumps(each, ensure_ascii=False) for each in lists])]
    scored = [output.scored(row, model, options) for row in rows]
    several = output.form == "labels" or options.top_k is not None
    kept = scored if several else [each[:1] for each in scored]
    shape = [count, len(kept[0])] if several else [count]
    tensors = [
        Tensor("label", "BYTES", shape, [one.label for each in kept for one in each]),
        Tensor("score", "FP32", shape, [one.score for each in kept for one in each]),
    ]
    if output.form == "labels":
        chosen = [set(output.result("", row.values, model, options)["prediction"]) for row in rows]
        flags = [one.label in labels for each, labels in zip(kept, chosen, strict=True) for one in each]
        tensors.append(Tensor("assigned", "BOOL", shape, flags))
    if output.form != "number":
        numbers = [number for row in rows for number in row.values]
        names = {"labels": json.dumps(model.labels, ensure_ascii=False)}
        tensors.append(Tensor("probabilities", "FP32", [count, len(model.labels)], numbers, names))
    return tensors


def _place(entity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entity[name] for name in ("text", "start", "end")}


def described_inputs(model: ModelInfo) -> list[Described]:
    """Return the inputs of a model."""
    return [Described(name, "BYTES", [-1]) for name in ([TEXT, TEXT_PAIR] if model.pairs else [TEXT])]


def described_outputs(model: ModelInfo) -> list[Described]:
    """Return the outputs of a model, as they are without `top_k`."""
    width = len(model.labels)
    match OUTPUTS[model.task].form:
        case "entities":
            return [Described("entities", "BYTES", [-1])]
        case "number":
            return [Described("label", "BYTES", [-1]), Described("score", "FP32", [-1])]
        case "label":
            return [
                Described("label", "BYTES", [-1]),
                Described("score", "FP32", [-1]),
                Described("probabilities", "FP32", [-1, width]),
            ]
        case _:
            return [
                Described("label", "BYTES", [-1, width]),
                Described("score", "FP32", [-1, width]),
                Described("assigned", "BOOL", [-1, width]),
                Described("probabilities", "FP32", [-1, width]),
            ]


def properties_of(model: ModelInfo) -> dict[str, str]:
    """Return what else the description of a model says."""
    return {
        "task": str(model.task),
        "labels": json.dumps(model.labels, ensure_ascii=False),
        "max_tokens": str(model.max_tokens),
    }
