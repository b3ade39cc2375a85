"""The local folders of one run: names only, created when they are filled."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """One folder that a run may fill, and what lies where in it."""

    root: Path

    @property
    def cache(self) -> Path:
        """Content-addressed downloads, so that *train* after *prepare* downloads nothing twice."""
        return self.root / "cache"

    @property
    def dataset(self) -> Path:
        """The dataset's files as they are."""
        return self.root / "dataset"

    @property
    def model(self) -> Path:
        """The base model."""
        return self.root / "model"

    @property
    def made(self) -> Path:
        """The prepared data as this run made it."""
        return self.root / "made"

    @property
    def prepared(self) -> Path:
        """The prepared data as the registry has it; another run may have been first."""
        return self.root / "prepared"

    @property
    def training(self) -> Path:
        """What the Trainer writes while it trains."""
        return self.root / "training"

    @property
    def artifact(self) -> Path:
        """The folder that is published."""
        return self.root / "artifact"

    @property
    def console_log(self) -> Path:
        """Copy of the console, for the artifact."""
        return self.root / "console.log"
