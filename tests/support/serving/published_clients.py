"""Asks a server with the clients that others publish. A program: each client runs in a process of its own.

tritonclient and kserve both register messages of the package `inference`, as the server does, and a process can hold
only one of them. Prints [[label, score], ...] for the texts.
"""

import asyncio
import json
import sys
import urllib.request
from typing import Any

MODEL = "reviews"
Found = list[tuple[str, float]]


def plain_http(url: str, grpc_url: str, texts: list[str]) -> Found:
    body = json.dumps({"texts": texts}).encode()
    request = urllib.request.Request(f"{url}/predict", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return [(each["prediction"], each["confidence"]) for each in json.load(reply)["predictions"]]


def huggingface_hub(url: str, grpc_url: str, texts: list[str]) -> Found:
    from huggingface_hub import InferenceClient

    best = []
    for client in (InferenceClient(base_url=url), InferenceClient(model=f"{url}/models/{MODEL}")):
        scored = [client.text_classification(text, top_k=2) for text in texts]
        best.append([(each[0].label, each[0].score) for each in scored])
    assert best[0] == best[1]
    return best[0]


def triton_http(url: str, grpc_url: str, texts: list[str]) -> Found:
    return _triton_http(url, texts, binary=True)


def triton_http_json(url: str, grpc_url: str, texts: list[str]) -> Found:
    return _triton_http(url, texts, binary=False)


def _triton_http(url: str, texts: list[str], *, binary: bool) -> Found:
    import numpy as np
    from tritonclient import http

    client = http.InferenceServerClient(url.removeprefix("http://"))
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL)
    assert not client.is_model_ready("other")
    outputs = [each["name"] for each in client.get_model_metadata(MODEL)["outputs"]]
    [version] = client.get_model_metadata(MODEL)["versions"]
    tensor = http.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=object), binary_data=binary)
    asked = None if binary else [http.InferRequestedOutput(name, binary_data=False) for name in outputs]
    return _of_triton(client.infer(MODEL, [tensor], model_version=version, outputs=asked, request_id="7"))


def triton_grpc(url: str, grpc_url: str, texts: list[str]) -> Found:
    import numpy as np
    from tritonclient import grpc

    client = grpc.InferenceServerClient(grpc_url)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL)
    assert client.get_server_metadata().name == "luthier"
    [version] = client.get_model_metadata(MODEL).versions
    tensor = grpc.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=object))
    return _of_triton(client.infer(MODEL, [tensor], model_version=version, request_id="7"))


def _of_triton(result: Any) -> Found:
    labels, scores = result.as_numpy("label"), result.as_numpy("score")
    texts = [label.decode() if isinstance(label, bytes) else str(label) for label in labels]
    return list(zip(texts, scores.tolist(), strict=True))


def kserve_v1(url: str, grpc_url: str, texts: list[str]) -> Found:
    from kserve import InferenceRESTClient, RESTConfig

    async def ask() -> Found:
        client = InferenceRESTClient(RESTConfig(protocol="v1"))
        assert await client.is_model_ready(url, MODEL)
        answer = await client.infer(url, {"instances": texts}, model_name=MODEL)
        await client.close()
        return [(each["label"], each["score"]) for each in answer["predictions"]]

    return asyncio.run(ask())


def kserve_v2(url: str, grpc_url: str, texts: list[str]) -> Found:
    from kserve import InferenceRESTClient, RESTConfig

    async def ask() -> Found:
        client = InferenceRESTClient(RESTConfig(protocol="v2"))
        assert await client.is_server_ready(url) and await client.is_model_ready(url, MODEL)
        answer = await client.infer(url, _of_kserve(texts), model_name=MODEL)
        await client.close()
        return _found(answer)

    return asyncio.run(ask())


def kserve_grpc(url: str, grpc_url: str, texts: list[str]) -> Found:
    from kserve import InferenceGRPCClient

    async def ask() -> Found:
        client = InferenceGRPCClient(grpc_url)
        assert await client.is_server_ready() and await client.is_model_ready(MODEL)
        answer = await client.infer(_of_kserve(texts))
        await client.close()
        return _found(answer)

    return asyncio.run(ask())


def _of_kserve(texts: list[str]) -> Any:
    from kserve import InferInput, InferRequest

    return InferRequest(MODEL, [InferInput("text", [len(texts)], "BYTES", texts)])


def _found(answer: Any) -> Found:
    outputs = {output.name: output.data for output in answer.outputs}
    labels = [label.decode() if isinstance(label, bytes) else label for label in outputs["label"]]
    return list(zip(labels, outputs["score"], strict=True))


if __name__ == "__main__":
    name, url, grpc_url, texts = sys.argv[1:]
    print(json.dumps(globals()[name](url, grpc_url, json.loads(texts))))
