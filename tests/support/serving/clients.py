"""One text in, its best label and score out, in every protocol that the server speaks; without their own clients."""

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

from starlette.testclient import TestClient

Found = list[tuple[str, float]]


def predict(client: TestClient, texts: Sequence[str]) -> Found:
    reply = client.post("/predict", json={"texts": list(texts)})
    return [(each["prediction"], each["confidence"]) for each in reply.json()["predictions"]]


def v1(client: TestClient, texts: Sequence[str]) -> Found:
    reply = client.post("/v1/models/reviews:predict", json={"instances": list(texts)})
    return [(each["label"], each["score"]) for each in reply.json()["predictions"]]


def v2(client: TestClient, texts: Sequence[str]) -> Found:
    reply = client.post("/v2/models/reviews/infer", json=infer(texts))
    outputs = {each["name"]: each["data"] for each in reply.json()["outputs"]}
    return list(zip(outputs["label"], outputs["score"], strict=True))


def v2_binary(client: TestClient, texts: Sequence[str]) -> Found:
    body, headers = binary(infer(texts, parameters={"binary_data_output": True}))
    reply = client.post("/v2/models/reviews/infer", content=body, headers=headers)
    outputs = read_binary(reply.content, reply.headers)
    scores = struct.unpack(f"<{len(texts)}f", outputs["score"])
    return [(label, round(score, 6)) for label, score in zip(strings(outputs["label"]), scores, strict=True)]


def hugging_face(client: TestClient, texts: Sequence[str]) -> Found:
    lists = client.post("/", json={"inputs": list(texts)}).json()
    return [(each[0]["label"], each[0]["score"]) for each in lists]


HTTP: dict[str, Callable[[TestClient, Sequence[str]], Found]] = {
    "predict": predict,
    "v1": v1,
    "v2": v2,
    "v2_binary": v2_binary,
    "hugging_face": hugging_face,
}


def tensor(texts: Sequence[str], name: str = "text") -> dict[str, Any]:
    return {"name": name, "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}


def infer(texts: Sequence[str], **more: Any) -> dict[str, Any]:
    return {"inputs": [tensor(texts)], **more}


def packed(texts: Sequence[str | bytes]) -> bytes:
    """Return texts as raw BYTES."""
    encoded = [text.encode() if isinstance(text, str) else text for text in texts]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def strings(raw: bytes) -> list[str]:
    """Return raw BYTES as texts."""
    found = []
    while raw:
        [size] = struct.unpack_from("<I", raw)
        found.append(raw[4 : 4 + size].decode())
        raw = raw[4 + size :]
    return found


def binary(document: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    """Return a request with its inputs behind the JSON, and its headers."""
    raw, inputs = b"", []
    for each in document["inputs"]:
        data = packed(each["data"])
        raw += data
        rest = {name: value for name, value in each.items() if name != "data"}
        inputs.append({**rest, "parameters": {"binary_data_size": len(data)}})
    text = json.dumps({**document, "inputs": inputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream"}
    return text + raw, headers


def read_binary(body: bytes, headers: Any) -> dict[str, bytes]:
    """Return the outputs behind the JSON of an answer by name."""
    size = int(headers["Inference-Header-Content-Length"])
    document, raw = json.loads(body[:size]), body[size:]
    outputs = {}
    for each in document["outputs"]:
        length = each["parameters"]["binary_data_size"]
        outputs[each["name"]], raw = raw[:length], raw[length:]
    assert not raw
    return outputs
