"""Q3, stock Ray Serve: the deployment of Ray's own tutorial "Serve a Text Generator with Request Batching".

https://docs.ray.io/en/latest/serve/tutorials/batch.html, with a classifier in place of the generator, JSON in place of
a query parameter, and without its `print` of each batch's size. All settings are the tutorial's.
"""

from __future__ import annotations

import os
from typing import Any

from ray import serve
from starlette.requests import Request
from transformers import pipeline


@serve.deployment
class BatchTextClassifier:
    def __init__(self, pipeline_key: str, model_key: str, version: str):
        self.model = pipeline(pipeline_key, model_key)
        self.version = version

    @serve.batch(max_batch_size=4)
    async def handle_batch(self, inputs: list[str]) -> list[dict[str, Any]]:
        results = self.model(inputs, truncation=True)
        return [
            {"input_text": text, "prediction": result["label"], "confidence": result["score"], "version": self.version}
            for text, result in zip(inputs, results, strict=True)
        ]

    async def __call__(self, request: Request) -> dict[str, Any]:
        answer: dict[str, Any] = await self.handle_batch((await request.json())["text"])
        return answer


classifier = BatchTextClassifier.bind("text-classification", os.environ["ARTIFACT"], os.environ["VERSION"])
