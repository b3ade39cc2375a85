"""How this replica is, over HTTP on a port of the pod's own, beside Ray's: the operator asks every replica by itself.

Ray's routes lead to any replica; what each one of them holds and has counted can only be asked here. Nothing secret is
told, and nothing can be changed.
"""

import logging
from collections.abc import Callable

from aiohttp import web

from luthier_api.documents import SERVER_REPORT_PATH, ServerReport

logger = logging.getLogger("ray.serve")


async def serve_report(report: Callable[[], ServerReport], port: int) -> web.AppRunner:
    """Answer at SERVER_REPORT_PATH from now on; the port may be shared with the replica that this one replaces."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=report().to_json().encode(), content_type="application/json")

    application = web.Application()
    application.router.add_get(SERVER_REPORT_PATH, answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port, reuse_port=True).start()
    return runner
