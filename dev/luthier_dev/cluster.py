"""What every cluster can do, whichever it is: the one interface that all of its users know.

Owns no cluster; those are the providers module's. Imports nothing that installs anything, so that what is installed
(addons, kueue) can be written against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from luthier_dev.kubectl import Kubectl


class Cluster(Protocol):
    """A Kubernetes cluster to run on."""

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        ...

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of its administrator; there once it is up."""
        ...

    @property
    def kubectl(self) -> Kubectl:
        """Kubectl on this cluster: `cluster.kubectl("get", "pods")` returns what it prints."""
        ...

    def up(self) -> Path:
        """Bring it up unless it is, and return the kubeconfig. Programs and images that it needs are built."""
        ...

    def down(self) -> None:
        """Take it down; images stay."""
        ...

    def image_ref(self, name: str) -> str | None:
        """Reference of an image of the catalogue on this cluster; None: what the chart names by default."""
        ...

    def build_images(self, names: Sequence[str]) -> None:
        """Build the named images where their sources changed; needs no cluster."""
        ...

    def load_images(self, names: Sequence[str]) -> None:
        """Build the named images where their sources changed, and give them to the cluster."""
        ...

    def url_for_service(self, namespace: str, name: str, port: int) -> AbstractContextManager[str]:
        """URL that reaches a Service from this machine, while the context lasts."""
        ...

    def how_to_open(self, namespace: str, name: str, port: int) -> list[str]:
        """Lines for a person who wants to open a Service."""
        ...
