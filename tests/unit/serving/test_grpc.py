"""The Open Inference Protocol over gRPC: a real gRPC server around the replica's methods, and a client of its own."""

import asyncio
import inspect
import json
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from luthier_dev.processes import free_ports
from luthier_operator.manifests import grpc as manifest
from luthier_serving.answers import Answer, ModelInfo, Row, Text
from luthier_serving.errors import Overloaded, Unavailable
from luthier_serving.inference import add_service
from luthier_serving.replica.access import ApiKeys
from luthier_serving.replica.discovery import Discovery
from luthier_serving.replica.endpoint import Endpoint
from luthier_serving.replica.grpc_service import InferenceService
from luthier_serving.replica.protocols import open_inference_pb2 as messages
from luthier_serving.replica.protocols.open_inference import METHODS
from support.serving import clients
from support.serving.doubles import MODEL, RecordedRequests, predictor, ready, respond, row
from support.serving.ray_applications import grpc_server, grpc_util, gRPCOptions, schema, server

pytestmark = pytest.mark.unit

TEXTS = ["naïve ☕", "good", "bad film"]
PROTO = Path(messages.__file__).with_name("open_inference.proto")


class Servicer(InferenceService):
    def __init__(self, send: Any, is_ready: Any = ready, keys: ApiKeys | None = None, **changes: Any):
        self._keys = keys
        made = predictor(send, **changes)
        self.requests = RecordedRequests()
        self._endpoint = Endpoint(made, self.requests)
        self._discovery = Discovery(made, is_ready)


class Client:
    """Calls each method by its name."""

    def __init__(self, channel: grpc.aio.Channel, servicer: Servicer):
        self._channel = channel
        self.requests = servicer.requests

    def __getattr__(self, method: str) -> Any:
        return self._channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}",
            request_serializer=getattr(messages, f"{method}Request").SerializeToString,
            response_deserializer=getattr(messages, f"{method}Response").FromString,
        )

    async def infer(self, **fields: Any) -> Any:
        return await self.ModelInfer(messages.ModelInferRequest(**({"model_name": "reviews"} | fields)))


Open = Callable[..., Awaitable[Client]]


@pytest.fixture
async def serve() -> AsyncIterator[Open]:
    opened: list[Any] = []

    async def start(send: Any = respond, is_ready: Any = ready, **changes: Any) -> Client:
        servicer, started = Servicer(send, is_ready, **changes), grpc.aio.server()
        add_service(servicer, started)
        port = started.add_insecure_port("127.0.0.1:0")
        await started.start()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        opened.append((started, channel))
        return Client(channel, servicer)

    yield start
    for started, channel in opened:
        await channel.close()
        await started.stop(None)


def tensor(texts: list[str], name: str = "text", **changes: Any) -> Any:
    contents = {"bytes_contents": [text.encode() for text in texts]}
    return {"name": name, "datatype": "BYTES", "shape": [len(texts)], "contents": contents, **changes}


def raw_tensor(texts: list[str]) -> dict[str, Any]:
    return {"name": "text", "datatype": "BYTES", "shape": [len(texts)]}


async def test_texts_are_answered_as_over_http_and_counted(serve: Open) -> None:
    client = await serve()
    answer = await client.infer(inputs=[tensor(TEXTS)], id="7")
    assert (answer.model_name, answer.model_version, answer.id) == ("reviews", "v1", "7")
    label, score, probabilities = answer.outputs
    assert [text.decode() for text in label.contents.bytes_contents] == ["positive"] * 3
    expected = [row(text).values for text in TEXTS]
    assert list(score.contents.fp32_contents) == pytest.approx([values[1] for values in expected])
    assert list(probabilities.shape) == [3, 2]
    assert json.loads(probabilities.parameters["labels"].string_param) == ["negative", "positive"]
    assert client.requests.codes == [(200, "rev-1")]


async def test_an_adapter_is_a_model_of_its_own(serve: Open) -> None:
    async def send(texts: list[Text], adapter: str | None = None, /) -> Answer:
        return Answer([row(text) for text in texts], MODEL._replace(version=adapter or "v1"), "replica-1")

    films = {"name": "films", "uri": "s3://m/films/versions/v", "version": "films", "digest": "sha256:" + "0" * 64}
    client = await serve(send, adapters=[films])
    answer = await client.infer(model_name="reviews:films", inputs=[tensor(["a"])])
    assert (answer.model_name, answer.model_version) == ("reviews:films", "films")
    metadata = await client.ModelMetadata(messages.ModelMetadataRequest(name="reviews:films"))
    assert (metadata.name, list(metadata.versions)) == ("reviews:films", ["films"])
    assert (await client.ModelReady(messages.ModelReadyRequest(name="reviews:films"))).ready
    with pytest.raises(grpc.aio.AioRpcError, match="this server has 'reviews' and 'reviews:films'") as error:
        await client.infer(model_name="reviews:books", inputs=[tensor(["a"])])
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_raw_contents_are_answered_raw(serve: Open) -> None:
    client = await serve()
    inputs, raw = [raw_tensor(TEXTS)], [clients.packed(TEXTS)]
    answer = await client.infer(inputs=inputs, raw_input_contents=raw, outputs=[{"name": "score"}, {"name": "label"}])
    assert [each.name for each in answer.outputs] == ["score", "label"]
    score, label = answer.raw_output_contents
    assert struct.unpack("<3f", score) == pytest.approx([row(text).values[1] for text in TEXTS])
    assert clients.strings(label) == ["positive"] * 3


async def test_the_version_is_in_the_metadata_after_the_answer(serve: Open) -> None:
    client = await serve()
    call = client.ModelInfer(messages.ModelInferRequest(model_name="reviews", inputs=[tensor(["a"])]))
    await call
    assert ("x-luthier-version", "v1") in list(await call.trailing_metadata())


BAD: list[tuple[dict[str, Any], grpc.StatusCode, str]] = [
    ({"model_name": "other"}, grpc.StatusCode.NOT_FOUND, "no model 'other' here; this server has 'reviews'"),
    ({"model_version": "9"}, grpc.StatusCode.NOT_FOUND, "no version '9' in service; in service: v1"),
    ({}, grpc.StatusCode.INVALID_ARGUMENT, "no input text;"),
    ({"inputs": [tensor(["a"], "words")]}, grpc.StatusCode.INVALID_ARGUMENT, "no input 'words'"),
    ({"inputs": [tensor(["a"], datatype="FP32")]}, grpc.StatusCode.INVALID_ARGUMENT, "is 'FP32'; texts are BYTES"),
    ({"inputs": [tensor(["a"], shape=[2])]}, grpc.StatusCode.INVALID_ARGUMENT, "1 elements and the shape [2]"),
    ({"inputs": [tensor([])]}, grpc.StatusCode.INVALID_ARGUMENT, "empty list"),
    ({"inputs": [tensor([""])]}, grpc.StatusCode.INVALID_ARGUMENT, "text[0] is empty"),
    ({"inputs": [tensor(["a"] * 1001)]}, grpc.StatusCode.INVALID_ARGUMENT, "1001 texts; send at most 1000"),
    ({"inputs": [tensor(["a" * 100_001])]}, grpc.StatusCode.INVALID_ARGUMENT, "100001 characters"),
    ({"inputs": [tensor(["a" * 2_000_000])]}, grpc.StatusCode.INVALID_ARGUMENT, "larger than 1048576 bytes"),
    (
        {"inputs": [tensor(["a"], contents={"bytes_contents": [b"\xff"]})]},
        grpc.StatusCode.INVALID_ARGUMENT,
        "text[0] is not UTF-8",
    ),
    (
        {"inputs": [raw_tensor(["a"])], "raw_input_contents": [b"\x09\x00\x00\x00a"]},
        grpc.StatusCode.INVALID_ARGUMENT,
        "raw bytes of inputs[0] end inside an element",
    ),
    (
        {"inputs": [raw_tensor(["a"])], "raw_input_contents": [b"", b""]},
        grpc.StatusCode.INVALID_ARGUMENT,
        "1 inputs and 2 raw contents",
    ),
    (
        {"inputs": [tensor(["a"])], "outputs": [{"name": "logits"}]},
        grpc.StatusCode.INVALID_ARGUMENT,
        "no output 'logits'",
    ),
    (
        {"inputs": [tensor(["a"])], "parameters": {"topk": {"int64_param": 1}}},
        grpc.StatusCode.INVALID_ARGUMENT,
        "'topk' in parameters",
    ),
    (
        {"inputs": [tensor(["a"])], "parameters": {"top_k": {"string_param": "1"}}},
        grpc.StatusCode.INVALID_ARGUMENT,
        'top_k is "1", not a whole number',
    ),
    ({"inputs": [tensor(["poison"])]}, grpc.StatusCode.INTERNAL, "The model failed on this text."),
]


@pytest.mark.parametrize(("fields", "code", "words"), BAD)
async def test_a_bad_call_gets_its_code_and_one_sentence(
    serve: Open, fields: dict[str, Any], code: grpc.StatusCode, words: str
) -> None:
    client = await serve()
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await client.infer(**fields)
    assert (error.value.code(), "\n" in error.value.details()) == (code, False)
    assert words in error.value.details() and error.value.details().endswith(".")
    assert len(client.requests.codes) == 1


@pytest.mark.parametrize(
    ("failure", "code", "retry_after"),
    [
        (Overloaded("Too many requests are queued."), grpc.StatusCode.UNAVAILABLE, "1"),
        (Unavailable("The revision does not answer."), grpc.StatusCode.UNAVAILABLE, "5"),
        (KeyError("a bug"), grpc.StatusCode.INTERNAL, None),
    ],
)
async def test_a_failure_behind_the_call_becomes_a_code_and_a_sentence(
    serve: Open, failure: Exception, code: grpc.StatusCode, retry_after: str | None
) -> None:
    async def fail(texts: list[Text]) -> Answer:
        raise failure

    client = await serve(fail)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await client.infer(inputs=[tensor(["a"])])
    assert (error.value.code(), error.value.details()[-1]) == (code, ".")
    assert dict(error.value.trailing_metadata()).get("retry-after") == retry_after
    assert client.requests.codes[0][0] == (500 if code is grpc.StatusCode.INTERNAL else 503)


async def test_options_and_cut_tokens_are_as_over_http(serve: Open) -> None:
    async def send(texts: list[Text]) -> Answer:
        return Answer([Row([0.1, 0.9], cut_tokens=3)] * len(texts), MODEL._replace(max_tokens=8), "replica-1")

    client = await serve(send)
    answer = await client.infer(inputs=[tensor(["a", "b"])], parameters={"top_k": {"int64_param": 1}})
    assert list(answer.outputs[0].shape) == [2, 1]
    assert answer.parameters["truncated_tokens"].int64_param == 6
    with pytest.raises(grpc.aio.AioRpcError, match="Text 1 of 2 has 11 tokens and the model reads 8"):
        await client.infer(inputs=[tensor(["a", "b"])], parameters={"truncate": {"bool_param": False}})


async def test_what_is_served_is_said(serve: Open) -> None:
    client = await serve()
    assert (await client.ServerLive(messages.ServerLiveRequest())).live
    assert (await client.ServerReady(messages.ServerReadyRequest())).ready
    assert (await client.ModelReady(messages.ModelReadyRequest(name="reviews"))).ready
    assert (await client.ModelReady(messages.ModelReadyRequest(name="reviews", version="v1"))).ready
    assert (await client.ServerMetadata(messages.ServerMetadataRequest())).name == "luthier"
    metadata = await client.ModelMetadata(messages.ModelMetadataRequest(name="reviews"))
    assert ([each.name for each in metadata.inputs], list(metadata.versions)) == (["text"], ["v1"])
    assert [each.name for each in metadata.outputs] == ["label", "score", "probabilities"]
    for method in ("ModelReady", "ModelMetadata"):
        with pytest.raises(grpc.aio.AioRpcError, match="no model 'other' here") as error:
            await getattr(client, method)(getattr(messages, f"{method}Request")(name="other"))
        assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_without_an_api_key_only_health_is_told(serve: Open, tmp_path: Path) -> None:
    (tmp_path / "team").write_text("secret-1")
    client = await serve(keys=ApiKeys(tmp_path))
    wanted = messages.ModelInferRequest(model_name="reviews", inputs=[tensor(TEXTS)])
    for method, request in {
        "ModelInfer": wanted,
        "ModelMetadata": messages.ModelMetadataRequest(name="reviews"),
        "ModelReady": messages.ModelReadyRequest(name="reviews"),
        "ServerMetadata": messages.ServerMetadataRequest(),
    }.items():
        for metadata in ((), (("authorization", "Bearer secret-2"),)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await getattr(client, method)(request, metadata=metadata)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert "Authorization: Bearer" in str(refused.value.details())
        await getattr(client, method)(request, metadata=(("authorization", "Bearer secret-1"),))
    assert (await client.ServerLive(messages.ServerLiveRequest())).live
    assert (await client.ServerReady(messages.ServerReadyRequest())).ready


async def test_a_server_without_a_model_is_live_and_not_ready(serve: Open) -> None:
    async def is_not_ready(version: str | None = None) -> ModelInfo:
        raise Unavailable("No model answers yet.")

    client = await serve(is_ready=is_not_ready)
    assert (await client.ServerLive(messages.ServerLiveRequest())).live
    assert not (await client.ServerReady(messages.ServerReadyRequest())).ready
    assert not (await client.ModelReady(messages.ModelReadyRequest(name="reviews"))).ready
    with pytest.raises(grpc.aio.AioRpcError, match="No model answers yet") as error:
        await client.ModelMetadata(messages.ModelMetadataRequest(name="reviews"))
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_rays_own_grpc_server_brings_a_call_to_the_method_of_its_name(serve: Open) -> None:
    servicer = Servicer(respond)

    def bring(service_method: str, streaming_type: object) -> Any:
        async def handler(request: Any, context: Any) -> bytes:
            ray_context = grpc_util.RayServegRPCContext(context)
            answer = await getattr(servicer, service_method.split("/")[-1])(request, grpc_context=ray_context)
            ray_context._set_on_grpc_context(context)
            serialized: bytes = answer.SerializeToString()
            return serialized

        return handler

    [port] = free_ports(1)
    options = gRPCOptions(**manifest.OPTIONS | {"port": port})
    loop = asyncio.get_running_loop()
    task, ray_server = await grpc_server.start_grpc_server(bring, options, event_loop=loop)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        client = Client(channel, servicer)
        answer = await client.infer(inputs=[tensor(["good"])])
        assert (answer.model_version, list(answer.outputs[0].contents.bytes_contents)) == ("v1", [b"positive"])
        with pytest.raises(grpc.aio.AioRpcError, match="There is no model 'other' here") as error:
            await client.infer(model_name="other")
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
    await ray_server.stop(None)
    await task


def test_the_replica_has_the_methods_and_ray_takes_the_options() -> None:
    ingress = server.serve.ingress()(server.ServerReplica)
    for method in METHODS:
        assert "grpc_context" in inspect.signature(getattr(ingress, method)).parameters
    deployed = {"grpc_options": manifest.OPTIONS, "applications": []}
    assert schema.ServeDeploySchema.model_validate(deployed).grpc_options.port == 9000


def test_the_generated_messages_are_those_of_the_proto_file(tmp_path: Path) -> None:
    """`make protocols` makes the one of the other."""
    root = PROTO.parents[3]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{root}", f"--python_out={tmp_path}"]
    subprocess.run([*command, str(PROTO.relative_to(root))], cwd=root, check=True)
    generated = tmp_path / Path(messages.__file__).relative_to(root)
    made, kept = (
        path.read_text().split("DESCRIPTOR = ")[1].splitlines()[0] for path in (generated, Path(messages.__file__))
    )
    assert made == kept
