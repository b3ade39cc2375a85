"""What a training pod may answer: older and newer releases are understood, anything else counts as no answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from luthier_api.documents import ProgressDocument
from luthier_operator.progress import ProgressReader

pytestmark = pytest.mark.unit

LEAST: dict[str, Any] = {"stage": "Training", "updatedAt": "2026-01-01T00:00:00Z"}


async def answer_to(body: str, status: int = 200) -> ProgressDocument | None:
    """Ask a pod that answers so."""

    async def progress(_: web.Request) -> web.Response:
        return web.Response(text=body, status=status)

    pod = web.Application()
    pod.router.add_get("/progress", progress)
    async with TestServer(pod, host="127.0.0.1") as server:
        assert server.port
        reader = ProgressReader(port=server.port)
        try:
            return await reader.read("127.0.0.1")
        finally:
            await reader.close()


async def test_a_pod_of_an_older_release_leaves_fields_out() -> None:
    found = await answer_to(json.dumps(LEAST))
    assert found and (found.checkpoint_step, found.tokens_per_second) == (None, None)


async def test_a_pod_of_a_newer_release_may_say_more() -> None:
    found = await answer_to(json.dumps({**LEAST, "step": 7, "checkpointStep": 5, "joules": 3}))
    assert found and (found.step, found.checkpoint_step) == (7, 5)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 200),
        ("not json", 200),
        (json.dumps({**LEAST, "step": -1}), 200),
        (json.dumps({**LEAST, "tokensPerSecond": "many"}), 200),
        (json.dumps(LEAST), 500),
        (json.dumps({**LEAST, "more": "x" * 70_000}), 200),
    ],
)
async def test_anything_else_counts_as_no_answer(body: str, status: int) -> None:
    assert await answer_to(body, status) is None
