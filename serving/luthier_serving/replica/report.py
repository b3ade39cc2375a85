"""How this replica is, over HTTP on a port of the pod's own, beside Ray's: the operator asks every replica by itself.

Ray's routes lead to any replica; what each one of them holds and has counted can only be asked here. Nothing secret is
told, and nothing can be changed.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from luthier_api.documents import SERVER_REPORT_PATH, ServerReport

# Of cgroup v2 and of v1; a container sees its own there.
_MEMORY_EVENTS = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))

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


def oom_kills(files: Sequence[Path] = _MEMORY_EVENTS) -> int:
    """Return how many processes of this container the kernel has killed for memory; 0 where it does not say."""
    for file in files:
        with suppress(OSError, ValueError):
            counts = dict(line.split(" ", 1) for line in file.read_text().splitlines())
            return int(counts.get("oom_kill", 0))
    return 0
