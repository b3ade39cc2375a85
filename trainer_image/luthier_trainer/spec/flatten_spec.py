"""The spec as settings with dotted names, for the report and for tracking servers. Pure."""

from collections.abc import Iterator
from typing import Any

from luthier_api.training import TrainingSpec

_ACCESS = {"secretRef", "endpoint", "region", "caBundle", "forcePathStyle"}


def flatten_spec(spec: TrainingSpec) -> dict[str, str]:
    """Return every value of the spec, defaults too, by its path in the manifest: hyperparameters.learningRate.

    Access to storage and to the tracking server is left out: it does not affect the result and may hold a password.
    """
    return {name: value for name, value in _leaves("", spec.to_wire()) if not _is_access(name)}


def _is_access(name: str) -> bool:
    return name == "tracking.mlflow.uri" or not _ACCESS.isdisjoint(name.split("."))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), each)
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        for number, each in enumerate(value):
            yield from _leaves(f"{path}.{number}", each)
    elif isinstance(value, list):
        yield path, ", ".join(map(str, value))
    else:
        yield path, str(value).lower() if isinstance(value, bool) else str(value)
