"""A real MLflow tracking server as one process on loopback, for tests.

Owns installing, starting and stopping it. The package mlflow pins libraries that the trainer has newer, so it lies in a
virtual environment of its own under $LUTHIER_HOME, made once for each release.
"""

from __future__ import annotations

import os
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from luthier_dev import environments, versions
from luthier_dev.errors import NotReady
from luthier_dev.processes import dies_with_us, free_ports
from luthier_dev.waiting import wait_until

_READY_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 10.0
# Neither reports to the makers nor starts further processes for features that no test is about.
_ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@dataclass(frozen=True)
class MlflowServer:
    """A running server."""

    uri: str
    process: subprocess.Popen[bytes] = field(repr=False)

    def stop(self) -> None:
        """Stop it and wait until it is gone."""
        self.process.terminate()
        try:
            self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_mlflow(folder: Path) -> MlflowServer:
    """Start a server that keeps everything under `folder`, and return once it answers.

    Raises:
        CommandFailed: it cannot be installed.
        NotReady: it did not answer in time; the message holds the end of its log.
    """
    program = ensure() / "bin" / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    command = [
        *(str(program), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--default-artifact-root", f"file://{folder}/files"),
    ]
    log = folder / "mlflow.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            dies_with_us(command),
            env=os.environ | _ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = MlflowServer(f"http://127.0.0.1:{port}", process)
    try:
        wait_until(lambda: _missing(server, log), "the MLflow server", _READY_TIMEOUT_S)
    except BaseException:
        server.stop()
        raise
    return server


def ensure() -> Path:
    """Return the virtual environment that holds the server; install it where it is not there."""
    name = f"mlflow-{versions.MLFLOW}"
    return environments.ensure(name, f"MLflow {versions.MLFLOW}", [f"mlflow=={versions.MLFLOW}"], usually_s=30)


def _missing(server: MlflowServer, log: Path) -> str | None:
    if server.process.poll() is not None:
        raise NotReady(f"The MLflow server ended with status {server.process.returncode}: {log.read_text()[-2000:]}")
    try:
        with urllib.request.urlopen(f"{server.uri}/health", timeout=2):
            return None
    except (urllib.error.URLError, OSError) as error:
        return str(error)
