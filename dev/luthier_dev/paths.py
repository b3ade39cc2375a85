"""The one layout under $LUTHIER_HOME: every path that the workbench writes is named here.

Owns names of folders only; creates nothing by itself. Used by every other module.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Layout:
    """Where everything lies, given the cache folder."""

    home: Path

    @property
    def bin(self) -> Path:
        """Programs that were built, each complete: they are renamed into place."""
        return self.home / "bin"

    @property
    def share(self) -> Path:
        """Data that came with the programs' sources, such as KubeRay's CRDs."""
        return self.home / "share"

    @property
    def build(self) -> Path:
        """Sources and compiler caches; emptied once the programs are there."""
        return self.home / "build"

    @property
    def logs(self) -> Path:
        """One log per step, the newest run only."""
        return self.home / "logs"

    @property
    def run(self) -> Path:
        """State of the running cluster: gone after `cluster-down`."""
        return self.home / "run"

    @property
    def controlplanes(self) -> Path:
        """Folders of the integration tests' control planes, named by the process that made them."""
        return self.home / "controlplanes"

    @property
    def storage(self) -> Path:
        """Images and layers of buildah, and its caches of downloaded wheels."""
        return self.home / "storage"

    @property
    def containerd(self) -> Path:
        """Images of containerd: kept over `cluster-down`, gone after `clean`."""
        return self.home / "containerd"

    @property
    def downloads(self) -> Path:
        """Root file systems and data that were downloaded and can be used again."""
        return self.home / "downloads"

    def make(self, path: Path) -> Path:
        """Create a folder of this layout and return it."""
        path.mkdir(parents=True, exist_ok=True)
        return path


def layout() -> Layout:
    """The layout under $LUTHIER_HOME, by default ~/.cache/luthier."""
    home = os.environ.get("LUTHIER_HOME") or Path.home() / ".cache" / "luthier"
    return Layout(Path(home).expanduser().absolute())
