"""A FineTuneJob without a cluster: the trainer, on this machine, with the user's own keys."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from luthier.errors import LuthierError
from luthier.kinds import Raw
from luthier.storage import config_of
from luthier_api.documents import Access, RunDocument
from luthier_api.training import TrainingSpec

TRAINER = "luthier_trainer"
NOT_INSTALLED = (
    "The trainer is not installed here: pip install './trainer_image[train]' in a checkout, or use the cluster: "
    "`luthier apply FILE --wait`."
)


def is_installed(module: str = TRAINER) -> bool:
    """Tell whether the trainer can be run."""
    return importlib.util.find_spec(module) is not None


def run_document(spec: Raw, output_uri: str | None = None) -> RunDocument:
    """Return what the trainer is told: the spec, without anything that is for the cluster.

    Args:
        spec: The spec of a FineTuneJob.
        output_uri: Where to publish instead of `output.uri`, such as file:///tmp/models.
    """
    training = TrainingSpec.model_validate(spec)
    if output_uri:
        training = training.model_copy(update={"output": training.output.model_copy(update={"uri": output_uri})})
    wire = training.to_wire()
    output = wire["output"]
    return RunDocument(
        spec=training,
        output_access=_access(output),
        model_access=_access(_own_or(wire["model"], output)),
        dataset_access=_access(_own_or(wire["dataset"], output)),
    )


def run(spec: Raw, output_uri: str | None = None, arguments: Sequence[str] = ()) -> int:
    """Prepare, train and publish on this machine; return the trainer's exit code.

    Raises:
        LuthierError: if the trainer is not installed.
    """
    if not is_installed():
        raise LuthierError(NOT_INSTALLED)
    with tempfile.TemporaryDirectory(prefix="luthier-run-") as folder:
        document = Path(folder) / "run.json"
        document.write_text(run_document(spec, output_uri).to_json(indent=2))
        environment = {**os.environ, "LUTHIER_TERMINATION_LOG": str(Path(folder) / "result.json")}
        command = [sys.executable, "-m", TRAINER, "run", str(document), *arguments]
        return subprocess.run(command, env=environment, check=False).returncode


def _own_or(own: Raw, output: Raw) -> Raw:
    """As in the cluster: a model or dataset that names no access of its own is reached like the output."""
    named = ("secretRef", "endpoint", "region", "caBundle", "forcePathStyle")
    return own if any(own.get(name) is not None for name in named) else output


def _access(access: Raw) -> Access:
    """Return how storage is reached; without credentials of its own, boto3's chain finds the user's."""
    config = config_of(access)
    return Access(
        endpoint=config.endpoint,
        region=config.region,
        force_path_style=config.force_path_style,
        ca_bundle=str(config.ca_bundle) if config.ca_bundle else None,
    )
