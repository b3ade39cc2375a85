"""The Open Inference Protocol (version 2) over gRPC: the messages of ModelInfer. Raw contents are answered raw."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import grpc

from luthier_serving.answers import Answer
from luthier_serving.errors import RequestError
from luthier_serving.replica.predictor import ServedModel
from luthier_serving.replica.protocols import open_inference_pb2 as messages
from luthier_serving.replica.protocols.interface import VERSION_HEADER, check_model
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
from luthier_serving.replica.validation import RequestLimits, body_too_large, check_fields

_CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_CONTENTS = {"BYTES": "bytes_contents", "FP32": "fp32_contents", "BOOL": "bool_contents"}

MessageT = TypeVar("MessageT")


class CallContext(Protocol):
    """What gRPC, or Ray Serve in its place, knows of a call."""

    def invocation_metadata(self) -> Any:
        """Return the metadata that the client sent: pairs of name and value."""

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status of the call."""

    def set_details(self, details: str) -> None:
        """Set the sentence beside it."""

    def set_trailing_metadata(self, metadata: Any) -> None:
        """Set what goes out after the message."""


class GrpcInference:
    """The protocol of one call; what it has to say beside the message, it says to the call's context."""

    def __init__(self, context: CallContext):
        self._context = context

    def parse(self, request: Any, limits: RequestLimits, served: ServedModel) -> InferCall:
        """Return the texts and options of a message.

        Raises:
            RequestError: 404 for another model or version, 413 for one that is too large, 422 for wrong tensors or
                parameters.
        """
        version = request.model_version or None
        adapter = check_model(request.model_name, version, served)
        if request.ByteSize() > limits.body_bytes:
            raise body_too_large(limits)
        parameters = {name: _value(each) for name, each in request.parameters.items()}
        check_fields(parameters, OPTIONS, f"the parameters are {', '.join(sorted(OPTIONS))}", "parameters")
        return InferCall(
            texts=texts_of(_inputs(request, limits), limits),
            options=read_options(parameters, OPTIONS),
            version=version,
            adapter=adapter,
            model=request.model_name,
            id=request.id,
            outputs={output.name: False for output in request.outputs},
            raw=bool(request.raw_input_contents),
        )

    def render(self, call: InferCall, answer: Answer) -> Any:
        """Return the outputs that are asked for.

        Raises:
            RequestError: 422 for one that there is not; 500 if the model failed on a text.
        """
        tensors = outputs_of(call, answer)
        response = messages.ModelInferResponse(model_name=call.model, model_version=answer.model.version, id=call.id)
        if cut := cut_tokens(answer):
            response.parameters["truncated_tokens"].int64_param = cut
        for tensor in tensors:
            _add_output(response, tensor, raw=call.raw)
        self._context.set_trailing_metadata([(VERSION_HEADER.lower(), answer.model.version)])
        return response

    def error(self, error: RequestError) -> Any:
        """Set status and sentence of the call."""
        return fail(error, messages.ModelInferResponse, self._context)


def fail(error: RequestError, empty: Callable[[], MessageT], context: CallContext) -> MessageT:
    """Return an empty message, with status and sentence of the call."""
    known = grpc.StatusCode.INVALID_ARGUMENT if error.status < 500 else grpc.StatusCode.INTERNAL
    context.set_code(_CODES.get(error.status, known))
    context.set_details(str(error))
    if error.retry_after_s is not None:
        context.set_trailing_metadata([("retry-after", str(error.retry_after_s))])
    return empty()


def _value(parameter: Any) -> Any:
    chosen = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, chosen) if chosen else None


def _inputs(request: Any, limits: RequestLimits) -> list[InputTensor]:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise RequestError(
            f"There are {len(request.inputs)} inputs and {len(raw)} raw contents; send one for each, in order.",
            status=422,
        )
    return [
        InputTensor(
            tensor.name,
            tensor.datatype,
            tensor.shape,
            elements_of(raw[at], f"inputs[{at}]", limits) if raw else tensor.contents.bytes_contents,
        )
        for at, tensor in enumerate(request.inputs)
    ]


def _add_output(response: Any, tensor: Tensor, *, raw: bool) -> None:
    output = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    for name, value in tensor.parameters.items():
        output.parameters[name].string_param = value
    if raw:
        response.raw_output_contents.append(raw_bytes(tensor))
    else:
        data = [text.encode() for text in tensor.data] if tensor.datatype == "BYTES" else tensor.data
        getattr(output.contents, _CONTENTS[tensor.datatype]).extend(data)
