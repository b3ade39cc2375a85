"""Who the operator says that it is, at each request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from luthier_operator.kube import access
from luthier_operator.kube.access import Access

pytestmark = pytest.mark.unit


async def test_a_session_goes_on_with_a_token_that_was_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.json_response({})

    application = web.Application()
    application.router.add_get("/api", answer)
    async with TestServer(application) as server:
        token = tmp_path / "token"
        token.write_text("before")
        named = {"name": "it", "cluster": {"server": str(server.make_url("/"))}, "user": {"tokenFile": str(token)}}
        context = {"name": "it", "context": {"cluster": "it", "user": "it"}}
        config = {"clusters": [named], "users": [named], "contexts": [context], "current-context": "it"}
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        entry = await Access.from_environment()
        async with entry.session([]) as session:
            for text in ("before", "after"):
                token.write_text(text)
                async with session.get(f"{entry.server}/api") as reply:
                    assert reply.status == 200
                monkeypatch.setattr(access, "_RENEW_S", 0.0)
    assert seen == ["Bearer before", "Bearer after"]
