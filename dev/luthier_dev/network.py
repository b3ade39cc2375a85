"""The network namespace that holds the node, and the addresses on both sides of its one link.

Owns the namespace, the veth pair and this machine's routes to it. Everything lies in 198.18.0.0/15, set aside for
benchmarks by RFC 2544, and a blackhole route for that range comes first, so that no packet meant for a pod can
leave by this machine's own link. Inside, only that range is reachable: pods have no way out.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from luthier_dev.errors import MachineError

RANGE = "198.18.0.0/15"
HOST_ADDRESS = "198.18.0.1"
NODE_ADDRESS = "198.18.0.2"
POD_RANGE = "198.18.128.0/17"
SERVICE_RANGE = "198.19.0.0/16"
API_SERVICE_ADDRESS = "198.19.0.1"
DNS_ADDRESS = "198.19.0.10"

_LINK_PREFIX = 30
_HOST_LINK = "luthier0"
_NODE_LINK = "node0"
_NAMESPACES = Path("/run/netns")
_SEARCH_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Namespace:
    """The network namespace by its name."""

    name: str = "luthier"

    @property
    def path(self) -> Path:
        """Where `ip netns` keeps it."""
        return _NAMESPACES / self.name

    def exists(self) -> bool:
        """Whether the namespace is there."""
        return self.path.exists()

    def enter(self, argv: Sequence[str]) -> list[str]:
        """The same command inside the namespace.

        Not `ip netns exec`: that mounts /sys anew and hides the cgroup mounts from kubelet.
        """
        return ["nsenter", f"--net={self.path}", *argv]


def create(namespace: Namespace) -> None:
    """Make the namespace and the link to it, and route the range there; needs `remove` to have run.

    Raises:
        MachineError: the range is in use on this machine already.
    """
    _check_for_foreign_routes()
    _ip("route", "replace", "blackhole", RANGE)
    _ip("netns", "add", namespace.name)
    _ip("link", "add", _HOST_LINK, "type", "veth", "peer", "name", _NODE_LINK, "netns", namespace.name)
    _ip("address", "add", f"{HOST_ADDRESS}/{_LINK_PREFIX}", "dev", _HOST_LINK)
    _ip("link", "set", _HOST_LINK, "up")
    inside = ["-n", namespace.name]
    _ip(*inside, "link", "set", "lo", "up")
    _ip(*inside, "address", "add", f"{NODE_ADDRESS}/{_LINK_PREFIX}", "dev", _NODE_LINK)
    _ip(*inside, "link", "set", _NODE_LINK, "up")
    _ip(*inside, "route", "add", "default", "via", HOST_ADDRESS)
    for reached in (POD_RANGE, SERVICE_RANGE):
        _ip("route", "replace", reached, "via", NODE_ADDRESS)
    subprocess.run(namespace.enter(["sysctl", "-qw", "net.ipv4.ip_forward=1"]), check=True)


def remove(namespace: Namespace) -> None:
    """Remove link, namespace and routes, whichever of them are there. Processes inside must have ended."""
    links = {link["ifname"] for link in _ip_json("link", "show")}
    if _HOST_LINK in links:
        _ip("link", "delete", _HOST_LINK)  # takes its peer and the routes through it along
    if namespace.exists():
        _ip("netns", "delete", namespace.name)
    for route in _ip_json("route", "show", "type", "blackhole"):
        if route["dst"] == RANGE:
            _ip("route", "delete", "blackhole", RANGE)


def _check_for_foreign_routes() -> None:
    """The range must be ours alone: a route by another device would lead packets for pods elsewhere."""
    for route in _ip_json("route", "show", "root", RANGE):
        if route.get("type") != "blackhole" and route.get("dev") != _HOST_LINK:
            raise MachineError(
                f"This machine routes {route['dst']} by {route.get('dev', route.get('type'))}, and the one-node "
                f"cluster needs {RANGE} for itself: remove that route, or set LUTHIER_USE_CLUSTER=1."
            )


def _ip(*arguments: str) -> None:
    result = subprocess.run(
        [_program(), *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if result.returncode != 0:
        raise MachineError(f"`ip {' '.join(arguments)}` failed: {result.stderr.strip()}")


def _ip_json(*arguments: str) -> list[dict[str, str]]:
    result = subprocess.run([_program(), "-j", *arguments], capture_output=True, text=True, check=True)
    answer: list[dict[str, str]] = json.loads(result.stdout or "[]")
    return answer


def _program() -> str:
    found = shutil.which("ip", path=_SEARCH_PATH)
    if found is None:
        raise MachineError("The program `ip` is missing: install the package iproute2.")
    return found
