"""The Open Inference Protocol (version 2) over HTTP: tensors as JSON, or raw as the binary extension has them.

With the binary extension a body is JSON and then the raw tensors; the header Inference-Header-Content-Length has the
size of the JSON, and `binary_data_size` in a tensor's parameters that of the tensor.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from luthier_serving.answers import Answer
from luthier_serving.errors import RequestError
from luthier_serving.replica.predictor import ServedModel
from luthier_serving.replica.protocols.interface import (
    HttpReply,
    HttpRequest,
    JsonProtocol,
    answered,
    check_model,
    version_headers,
)
from luthier_serving.replica.protocols.options import read_options
from luthier_serving.replica.protocols.tensors import (
    OPTIONS,
    InferCall,
    InputTensor,
    Tensor,
    cut_tokens,
    elements_of,
    outputs_of,
    raw_bytes,
    texts_of,
)
from luthier_serving.replica.validation import (
    Json,
    RequestLimits,
    body_too_large,
    check_fields,
    check_text,
    json_type,
    parse_object,
)

USAGE = 'send {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["..."]}]}'
JSON_SIZE_HEADER = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"
# kserve's client names the model in the body too.
_FIELDS = frozenset({"id", "model_name", "parameters", "inputs", "outputs"})
_INPUT_FIELDS = frozenset({"name", "datatype", "shape", "parameters", "data"})
_OUTPUT_FIELDS = frozenset({"name", "parameters"})
_PARAMETERS = OPTIONS | {"binary_data_output"}
_SIZE = "binary_data_size"


class V2(JsonProtocol):
    """Every output is labelled: what stands in `probabilities` is said by its parameter `labels`."""

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Refuse a request that says that it is no JSON, and has no raw tensors behind it either.

        Raises:
            RequestError: 415.
        """
        if JSON_SIZE_HEADER.lower() not in headers:
            super().check_headers(headers)

    def parse(self, request: HttpRequest, limits: RequestLimits, served: ServedModel) -> InferCall:
        """Return the texts and options of a body.

        Raises:
            RequestError: 400 for a body that is not JSON, 404 for another model or version, 413 for one that is too
                large, 422 for wrong tensors or parameters.
        """
        name, version = request.path["model"], request.path.get("version")
        adapter = check_model(name, version, served)
        text, raw = _split(request, limits)
        document = parse_object(text, limits, USAGE)
        check_fields(document, _FIELDS, USAGE)
        if document.get("model_name") not in (None, name):
            raise RequestError(f"model_name is another than {name!r} in the path; leave it out.", status=422)
        parameters = _object(document, "parameters")
        check_fields(parameters, _PARAMETERS, f"the parameters are {', '.join(sorted(_PARAMETERS))}", "parameters")
        identity = document.get("id", "")
        if not isinstance(identity, str):
            raise RequestError(f"The field id is {json_type(identity)}, not a string.", status=422)
        if identity:
            check_text(identity, "id", limits)
        raw_outputs = parameters.get("binary_data_output") is True
        return InferCall(
            texts=texts_of(_inputs(document, raw, limits), limits),
            options=read_options(parameters, OPTIONS),
            version=version,
            adapter=adapter,
            model=name,
            id=identity,
            outputs=_asked_outputs(document, raw=raw_outputs),
            raw=raw_outputs,
        )

    def render(self, call: InferCall, answer: Answer) -> HttpReply:
        """Return the outputs that are asked for.

        Raises:
            RequestError: 422 for one that there is not; 500 if the model failed on a text.
        """
        raw: list[bytes] = []
        outputs = [
            _output(tensor, raw if call.outputs.get(tensor.name, call.raw) else None)
            for tensor in outputs_of(call, answer)
        ]
        document: Json = {"model_name": call.model, "model_version": answer.model.version}
        if call.id:
            document["id"] = call.id
        if cut := cut_tokens(answer):
            document["parameters"] = {"truncated_tokens": cut}
        document["outputs"] = outputs
        if not raw:
            return answered(document, answer)
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {**version_headers(answer.model), JSON_SIZE_HEADER: str(len(text))}
        return HttpReply(200, text + b"".join(raw), headers, BINARY)


def _split(request: HttpRequest, limits: RequestLimits) -> tuple[bytes, memoryview]:
    """Return the JSON of a body and the raw tensors behind it."""
    body, size = request.body, request.headers.get(JSON_SIZE_HEADER.lower())
    if len(body) > limits.body_bytes:
        raise body_too_large(limits)
    if size is None:
        return body, memoryview(b"")
    if not (size.isascii() and size.isdigit() and len(size) < 12 and int(size) <= len(body)):
        raise RequestError(
            f"The header {JSON_SIZE_HEADER} is {size[:30]!r}, not a number of bytes up to the {len(body)} of the body.",
            status=400,
        )
    return body[: int(size)], memoryview(body)[int(size) :]


def _inputs(document: Json, raw: memoryview, limits: RequestLimits) -> list[InputTensor]:
    tensors = []
    for at, tensor in enumerate(_objects(document, "inputs")):
        where = f"inputs[{at}]"
        check_fields(tensor, _INPUT_FIELDS, USAGE, where)
        name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
        if not isinstance(name, str) or not isinstance(datatype, str) or not isinstance(shape, list):
            raise RequestError(f"{where} needs a name, a datatype and a shape; {USAGE}.", status=422)
        size = _object(tensor, "parameters", where).get(_SIZE)
        if size is None:
            elements = _flat(tensor.get("data"), where)
        elif type(size) is not int or not 0 <= size <= len(raw):
            raise RequestError(
                f"{where} has the {_SIZE} {json.dumps(size)[:30]}, but {len(raw)} bytes are left behind the JSON.",
                status=422,
            )
        else:
            elements = elements_of(raw[:size], where, limits)
            raw = raw[size:]
        tensors.append(InputTensor(name, datatype, shape, elements))
    if len(raw):
        raise RequestError(f"{len(raw)} bytes behind the JSON belong to no input; give each its {_SIZE}.", status=422)
    return tensors


def _flat(data: Any, where: str) -> list[Any]:
    """Return the elements of a tensor, which may be nested as its shape is."""
    if not isinstance(data, list):
        raise RequestError(f"{where} has no list of data; {USAGE}.", status=422)
    if all(isinstance(each, list) and len(each) == 1 for each in data):
        return [each[0] for each in data]
    return data


def _asked_outputs(document: Json, *, raw: bool) -> dict[str, bool]:
    """Return the outputs that are asked for, and which of them raw."""
    asked = {}
    for at, output in enumerate(_objects(document, "outputs") if document.get("outputs") else []):
        where = f"outputs[{at}]"
        check_fields(output, _OUTPUT_FIELDS, 'an output is {"name": "..."}', where)
        name = output.get("name")
        if not isinstance(name, str):
            raise RequestError(f"{where} has no name.", status=422)
        asked[name] = _object(output, "parameters", where).get("binary_data", raw) is True
    return asked


def _output(tensor: Tensor, raw: list[bytes] | None) -> Json:
    """Return an output as JSON; with `raw`, its data are appended there instead."""
    document: Json = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
    parameters: Json = {**tensor.parameters}
    if raw is None:
        document["data"] = tensor.data
    else:
        raw.append(raw_bytes(tensor))
        parameters["binary_data_size"] = len(raw[-1])
    return document | ({"parameters": parameters} if parameters else {})


def _objects(document: Json, name: str) -> Sequence[Json]:
    value = document.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(each, dict) for each in value):
        raise RequestError(f"The field {name} is no list of objects; {USAGE}.", status=422)
    return value


def _object(document: Json, name: str, where: str = "The body") -> Json:
    value = document.get(name, {})
    if not isinstance(value, dict):
        raise RequestError(f"{where} has {json_type(value)} for {name}, not an object.", status=422)
    return value
