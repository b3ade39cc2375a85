"""How a run reaches storage: the registry that it publishes to, and its inputs by the access that is theirs."""

from luthier_api.documents import Access, RunDocument
from luthier_artifacts import Registry, StorageConfig, open_registry


def open_output(run: RunDocument) -> Registry:
    """Open the registry that the run publishes to."""
    output = run.spec.output
    return open_registry(output.uri, output.name, StorageConfig.from_access(run.output_access))


def input_storage(run: RunDocument, access: Access) -> StorageConfig:
    """Return how an input is reached: by its own access, or by the output's where it names none."""
    return StorageConfig.from_access(run.output_access if access == Access() else access)
