"""A real Ray on this machine, configured over its dashboard as KubeRay does it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier_api.documents import SERVER_REPORT_PATH, RevisionConfig, Route, ServerConfig, ServerReport
from luthier_dev.processes import free_ports
from luthier_dev.waiting import wait_until
from luthier_operator.manifests import grpc

START_TIMEOUT_S = 90.0
# As in the image; where the GPU tests run, our packages are not installed.
_HAPROXY = Path(sys.executable).with_name("luthier-haproxy")
# What the image sets, beside what keeps this Ray to itself.
IMAGE_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_FREEZE_GC_ON_STARTUP": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response 502",
    "RAY_SERVE_HAPROXY_RETRIES": "10",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "65536",
    "RAY_worker_niceness": "0",
    "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": "67108864",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": "268435456",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "luthier_serving.replica.front.middlewares",
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "90",
    "RAY_SERVE_SESSION_ID_HEADER_KEY": "x-ray-serve-session",
}


@dataclass
class LocalRay:
    """One Ray head with token authentication, its own folder, its own ports, and a small object store."""

    # Short, because Ray puts Unix sockets below it, whose paths may have 107 characters.
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="lray-", dir="/tmp")))
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    extra_env: dict[str, str] = field(default_factory=dict)
    grpc: bool = False

    @property
    def api_keys(self) -> Path:
        """Folder of the API keys, for servers that ask for them."""
        return self.folder / "api-keys"

    def launch(self) -> None:
        """Begin to start; `wait_started` waits until it has."""
        self.http_port, dashboard, gcs, agent, client, metrics, ha_metrics, ha_stats, report, *more = free_ports(11)
        self._grpc_port, grpc_fallback = more
        self.grpc_url = f"127.0.0.1:{self._grpc_port}"
        self.report_url = f"http://127.0.0.1:{report}{SERVER_REPORT_PATH}"
        self.dashboard_url = f"http://127.0.0.1:{dashboard}/api/serve/applications/"
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.metrics_url = f"http://127.0.0.1:{metrics}/metrics"
        haproxy = self.folder / "haproxy"
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))},
            **IMAGE_SETTINGS,
            **self.extra_env,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "LUTHIER_REPORT_PORT": str(report),
            "LUTHIER_API_KEYS_DIR": str(self.api_keys),
            "RAY_AUTH_TOKEN": self.token,
            **({"RAY_SERVE_HAPROXY_BINARY_PATH": str(_HAPROXY)} if _HAPROXY.exists() else {}),
            "RAY_SERVE_HAPROXY_NBTHREAD": "1",
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "state"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(ha_metrics),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(ha_stats),
            "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(grpc_fallback),
        }
        command = [
            *("ray", "start", "--head", f"--port={gcs}", f"--temp-dir={self.folder}", "--num-cpus=6"),
            *("--object-store-memory=80000000", "--disable-usage-stats"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"),
            *(f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}"),
        ]
        with (self.folder / "start.log").open("wb") as log:
            self._starting = subprocess.Popen(command, env=self._env, stdout=log, stderr=log)

    def wait_started(self) -> None:
        assert self._starting.wait(START_TIMEOUT_S) == 0, (self.folder / "start.log").read_text()

    def stop(self) -> None:
        """End every process that this Ray started, by the token in its environment, and no other Ray's."""
        for _ in range(2):  # a process has no environment for a moment while it becomes another program
            wait_until(self._kill_the_rest, "the end of Ray", timeout_s=20, interval_s=0.1)
            time.sleep(0.2)
        shutil.rmtree(self.folder)

    def _kill_the_rest(self) -> str | None:
        running = self.processes()
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return f"processes {running} run" if running else None

    def processes(self) -> list[int]:
        mark = f"RAY_AUTH_TOKEN={self.token}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    environment = (entry / "environ").read_bytes()
                except (FileNotFoundError, ProcessLookupError, PermissionError):
                    continue
                if mark in environment.split(b"\0"):
                    found.append(int(entry.name))
        return found

    def deploy(self, config: ServerConfig, *own: RevisionConfig, api_keys: bool = False, **options: Any) -> None:
        """Put a configuration, as the operator composes it (serving/README.md).

        Args:
            config: of the server.
            own: revisions that are applications of their own.
            api_keys: whether the server asks for API keys.
            options: of the server's deployment; without any, it has one replica.
        """
        size = options or {"num_replicas": 1}
        applications = [
            {
                "name": "server",
                "import_path": "luthier_serving.server:app",
                "route_prefix": "/",
                "args": {"gpusPerReplica": 0, **({"apiKeys": True} if api_keys else {})},
                "deployments": [{"name": "Server", "user_config": config.to_wire(), **size}],
            },
            *(
                {
                    "name": revision.name,
                    "import_path": "luthier_serving.revision:app",
                    "route_prefix": None,
                    "args": revision.to_wire(),
                    "deployments": [{"name": "Revision", "num_replicas": 1}],
                }
                for revision in own
            ),
        ]
        body = {
            "proxy_location": "EveryNode",
            "http_options": {"host": "127.0.0.1", "port": self.http_port, "keep_alive_timeout_s": 90},
            **({"grpc_options": grpc.OPTIONS | {"port": self._grpc_port}} if self.grpc else {}),
            "logging_config": {"encoding": "JSON", "enable_access_log": False},
            "applications": applications,
        }
        self._dashboard_request("PUT", json.dumps(body).encode())

    def applications(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._dashboard_request("GET"))["applications"]
        return found

    def report(self) -> ServerReport:
        """Return what the server replica says of itself, as the operator asks it."""
        with urllib.request.urlopen(self.report_url, timeout=5) as reply:
            return ServerReport.from_json(reply.read())

    def served_version(self) -> str | None:
        """Return the version that answers, or None while none does."""
        request = urllib.request.Request(
            f"{self.url}/predict", b'{"text": "film"}', {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                version: str = reply.headers["X-Luthier-Version"]
                return version
        except OSError:
            return None

    def post(self, path: str, document: object) -> Any:
        """Return the answer to a request that succeeds."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(document).encode(), headers)
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.load(reply)

    @staticmethod
    def wait_until(condition: Callable[[], Any], timeout_s: float) -> Any:
        """Return what the condition returns as soon as it is true; a server that does not answer yet makes it false."""
        found: list[Any] = []

        def missing() -> str | None:
            try:
                found.append(condition())
            except OSError as error:
                return str(error)
            return None if found[-1] else f"the condition is {found[-1]!r}"

        wait_until(missing, "the server", timeout_s, interval_s=0.1)
        return found[-1]

    def wait_for(self, name: str, *statuses: str, timeout_s: float = 60) -> dict[str, Any]:
        """Return an application once it has one of the statuses."""

        def found() -> dict[str, Any] | None:
            application: dict[str, Any] | None = self.applications().get(name)
            return application if application and application["status"] in statuses else None

        application: dict[str, Any] = self.wait_until(found, timeout_s)
        return application

    def _dashboard_request(self, method: str, body: bytes | None = None) -> bytes:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(self.dashboard_url, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=START_TIMEOUT_S) as reply:
            content: bytes = reply.read()
            return content


def server_config(stable: RevisionConfig, *own: tuple[RevisionConfig, int], **changes: Any) -> ServerConfig:
    """Return the configuration of a server that computes `stable` itself, and others by handle with these weights."""
    weights = {stable.name: 100 - sum(weight for _, weight in own), **{each.name: weight for each, weight in own}}
    versions = {each.name: each.version for each in (stable, *(each for each, _ in own))}
    names = {each.name for each, _ in own}
    routes = [
        Route(revision=name, version=versions[name], weight=max(weight, 0), own_application=name in names)
        for name, weight in weights.items()
    ]
    return ServerConfig(model_name="reviews", stable=stable, routes=routes, **changes)
