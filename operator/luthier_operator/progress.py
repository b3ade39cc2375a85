"""Asking a training pod how far it is. The pod may be broken or hostile: short time-outs, small answers, no redirects.

The address comes from the pod's status alone, never from anything that a user or the pod wrote.
"""

import ipaddress
import logging

import aiohttp

from luthier_api.documents import TRAINER_PORT, ProgressDocument
from luthier_operator import metrics

MAX_BYTES = 64 * 1024
logger = logging.getLogger(__name__)


class ProgressReader:
    """Reads the progress of training pods over one connection pool."""

    def __init__(self, timeout_s: float = 2.0, port: int = TRAINER_PORT) -> None:
        """An answer that takes longer than `timeout_s` counts as none."""
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._port = port
        self._session: aiohttp.ClientSession | None = None

    async def read(self, ip: str) -> ProgressDocument | None:
        """Return what the pod says, or None: a pod that does not tell its progress may train all the same."""
        host = f"[{ip}]" if ipaddress.ip_address(ip).version == 6 else ip
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, trust_env=False)
        try:
            url = f"http://{host}:{self._port}/progress"
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    raise ValueError(f"it answered {response.status}")
                content = await response.content.read(MAX_BYTES + 1)
                while len(content) <= MAX_BYTES and not response.content.at_eof():
                    content += await response.content.read(MAX_BYTES + 1 - len(content))
            if len(content) > MAX_BYTES:
                raise ValueError("its answer is longer than 64 KiB")
            # Only for display, and the pod may be of a newer release than this operator: what is unknown is left out.
            return ProgressDocument.model_validate_json(content, extra="ignore")
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            metrics.PROGRESS_FAILURES.inc()
            logger.debug("the pod at %s did not tell its progress: %s", ip, error or type(error).__name__)
            return None

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()
