"""The local folders of one run: names only, created when they are filled.

The processes of a node share the folders that they only read, once filled; each writes to a root of its own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Workspace:
    """One folder that a run may fill, and what lies where in it.

    Attributes:
        root: everything that this process writes.
        shared: what the processes of a node share; `root` where there is one process.
    """

    root: Path
    shared: Path

    @classmethod
    def of(cls, folder: Path, rank: int = 0) -> Self:
        """Return the workspace of one process in the run's folder."""
        return cls(folder / f"rank-{rank}" if rank else folder, folder)

    @property
    def cache(self) -> Path:
        """Content-addressed downloads, so that *train* after *prepare* downloads nothing twice."""
        return self.shared / "cache"

    @property
    def dataset(self) -> Path:
        """The dataset's files as they are."""
        return self.shared / "dataset"

    @property
    def model(self) -> Path:
        """The base model."""
        return self.shared / "model"

    @property
    def made(self) -> Path:
        """The prepared data as this run made it."""
        return self.shared / "made"

    @property
    def prepared(self) -> Path:
        """The prepared data as the registry has it; another run may have been first."""
        return self.shared / "prepared"

    @property
    def training(self) -> Path:
        """What the Trainer writes while it trains."""
        return self.root / "training"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints on their way to storage."""
        return self.root / "checkpoints"

    @property
    def resumed(self) -> Path:
        """The checkpoint that this attempt went on from."""
        return self.shared / "resumed"

    @property
    def kept(self) -> Path:
        """The version whose weights are used, where nothing is trained."""
        return self.shared / "kept"

    @property
    def artifact(self) -> Path:
        """The folder that is published."""
        return self.root / "artifact"

    @property
    def console_log(self) -> Path:
        """Copy of the console, for the artifact."""
        return self.root / "console.log"
