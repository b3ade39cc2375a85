"""What somebody else needs to see to help: a zip with the resources of one name, their pods, Events and logs.

Nothing secret goes in: Secrets are not read at all, values of environment variables are replaced, keys and passwords
in any text are masked, and so is what stands in quotes and is long enough to be one of the user's own texts.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from luthier.cluster import Cluster
from luthier.doctor import Row
from luthier.errors import LuthierError
from luthier.kinds import Raw
from luthier.overview import Overview

REDACTED = "[redacted]"
_LOG_LINES = 2000
_OWN_WORDS = 60
_LABEL = "luthier.dev"
# Names of settings whose values help, and give nothing away.
_PLAIN_VARIABLES = re.compile(
    r"(LUTHIER_(?!.*(KEY|SECRET|TOKEN|PASSWORD))|NVIDIA_|CUDA_|OMP_|RAY_(?!.*(PASSWORD|TOKEN)))\w+"
)
_MASKS = (
    (re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{12,}\b"), REDACTED),
    (re.compile(r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*"), REDACTED),
    (re.compile(r"\bhf_[A-Za-z0-9]{20,}\b"), REDACTED),
    (re.compile(r"(?i)(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {REDACTED}"),
    (re.compile(r"(://)[^/\s:@]+:[^/\s@]+@"), rf"\1{REDACTED}@"),
    (re.compile(r"(?i)((?:secret|password|passwd|token|api[_-]?key|access[_-]?key(?:[_-]?id)?)[\"']?\s*[=:]\s*[\"']?)[^\s\"',}]+"),
     rf"\1{REDACTED}"),
    (re.compile(r"(?i)(x-amz-(?:signature|credential|security-token)=)[^&\s]+"), rf"\1{REDACTED}"),
)  # fmt: skip
_QUOTED = re.compile(rf"""(?P<quote>['"“])(?P<said>[^'"”\n]{{{_OWN_WORDS},}})['"”]""")
_SECTIONS = ("jobs:apis/batch/v1", "rayservices:apis/ray.io/v1", "rayclusters:apis/ray.io/v1", "services:api/v1")


def redacted_text(text: str) -> str:
    """Return a text without keys, passwords and long quotations."""
    for pattern, replacement in _MASKS:
        text = pattern.sub(replacement, text)
    return _QUOTED.sub(lambda match: f"{match['quote']}[{len(match['said'])} characters]{match['quote']}", text)


def redacted(value: Any) -> Any:
    """Return an object without what is secret, or of no use to others."""
    if isinstance(value, list):
        return [redacted(each) for each in value]
    if isinstance(value, str):
        return redacted_text(value)
    if not isinstance(value, dict):
        return value
    if set(value) >= {"name", "value"} and isinstance(value["value"], str):  # an environment variable
        plain = _PLAIN_VARIABLES.fullmatch(str(value["name"]))
        return {**value, "value": redacted_text(value["value"]) if plain else REDACTED}
    dropped = ("managedFields", "kubectl.kubernetes.io/last-applied-configuration")
    return {key: redacted(each) for key, each in value.items() if key not in dropped}


def write_bundle(cluster: Cluster, found: Overview, rows: Iterable[Row], path: Path, now: datetime) -> list[str]:
    """Write the zip, and return the names of its files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, text in _files(cluster, found, rows, now):
            bundle.writestr(name, text)
        return bundle.namelist()


def _files(cluster: Cluster, found: Overview, rows: Iterable[Row], now: datetime) -> Iterator[tuple[str, str]]:
    yield "README.txt", _readme(found, now)
    for resource in found.resources:
        yield f"{resource.kind.name.lower()}-{resource.name}.yaml", _yaml(resource.raw)
    yield "events.yaml", _yaml(found.events)
    yield "pods.yaml", _yaml(found.pods)
    for section in _SECTIONS:
        plural, group = section.split(":")
        yield f"{plural}.yaml", _section(cluster, found, plural, group)
    yield "doctor.json", json.dumps([redacted(vars(row)) for row in rows], indent=2, default=str)
    for pod in found.pods:
        for container in _containers(pod):
            name = f"logs/{pod['metadata']['name']}/{container}.log"
            yield name, _log(cluster, str(pod["metadata"]["name"]), container)


def _section(cluster: Cluster, found: Overview, plural: str, group: str) -> str:
    try:
        objects = cluster.list(cluster.in_namespace(plural, group))
    except LuthierError as error:
        return f"# not read: {redacted_text(str(error))}\n"
    names = {resource.name for resource in found.resources}
    mine = [each for each in objects if _belongs(each, names)]
    return _yaml(mine)


def _belongs(raw: Raw, names: set[str]) -> bool:
    metadata = raw["metadata"]
    labels = metadata.get("labels") or {}
    owners = {owner["name"] for owner in metadata.get("ownerReferences") or []}
    labelled = {value for key, value in labels.items() if key.startswith(_LABEL)}
    return bool(names & (owners | labelled | {metadata["name"], metadata["name"].removesuffix("-serve-svc")}))


def _containers(pod: Raw) -> list[str]:
    spec = pod.get("spec") or {}
    return [str(each["name"]) for part in ("initContainers", "containers") for each in spec.get(part) or []]


def _log(cluster: Cluster, pod: str, container: str) -> str:
    try:
        return redacted_text("\n".join(cluster.log(pod, container, tail=_LOG_LINES))) + "\n"
    except LuthierError as error:
        return f"not read: {redacted_text(str(error))}\n"


def _yaml(value: Any) -> str:
    return yaml.safe_dump(redacted(value), sort_keys=False, allow_unicode=True, width=120)


def _readme(found: Overview, now: datetime) -> str:
    return (
        f"Luthier support bundle of {found.name} in namespace {found.namespace}, {now:%Y-%m-%d %H:%M} UTC.\n"
        "Secrets were not read. Values of environment variables, keys, passwords and long quotations are replaced.\n"
        "Look through it before you give it away: names of buckets, files, columns and labels are in it.\n"
    )
