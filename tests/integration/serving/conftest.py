"""A real Ray on this machine, and real artifacts in the real S3."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from luthier_api.documents import (
    SERVING_DOCUMENT_FILE,
    Access,
    RevisionConfig,
)
from luthier_api.training import Task
from luthier_artifacts import Metadata, PublishedVersion, StorageConfig, open_registry
from support.serving.artifact import make_artifact, serving_document
from support.serving.local_ray import LocalRay


@dataclass(frozen=True)
class Models:
    """Versions in the registry: two models that disagree by construction, and the revisions that serve them."""

    storage: StorageConfig
    access: Access
    folder: Path
    registry_uri: str
    first: PublishedVersion
    second: PublishedVersion

    def revision(self, name: str, version: PublishedVersion, **changes: Any) -> RevisionConfig:
        fields = {
            "name": name,
            "model_uri": version.uri,
            "version": version.version,
            "digest": version.manifest.digest,
            "access": self.access,
        }
        return RevisionConfig(**(fields | changes))

    def publish(self, name: str, folder: Path) -> PublishedVersion:
        return publish(self.registry_uri, name, self.storage, folder)


def publish(uri: str, name: str, storage: StorageConfig, folder: Path) -> PublishedVersion:
    """Publish under a run key of its own: a key that another test has used would name that test's version."""
    registry = open_registry(uri, name, storage)
    return registry.publish(folder, secrets.token_hex(32), Metadata(task=Task.TEXT_CLASSIFICATION))


@pytest.fixture(scope="session")
def launched_ray(s3: Any) -> Iterator[LocalRay]:
    """One Ray for the session, starting; its replicas read S3 with keys that may only read."""
    reader = s3.server.reader
    cache = Path(tempfile.mkdtemp(prefix="lcache-"))
    running = LocalRay(
        grpc=True,
        extra_env={
            "LUTHIER_OUTPUT_AWS_ACCESS_KEY_ID": reader.access_key,
            "LUTHIER_OUTPUT_AWS_SECRET_ACCESS_KEY": reader.secret_key,
            # Whoever writes a request log has keys of its own.
            "LUTHIER_LOG_AWS_ACCESS_KEY_ID": s3.access_key,
            "LUTHIER_LOG_AWS_SECRET_ACCESS_KEY": s3.secret_key,
            "LUTHIER_CACHE": str(cache),
            "LUTHIER_LOAD_PATIENCE_S": "1",
            "LUTHIER_HEAD_TIMEOUT_S": "5",
        },
    )
    try:
        running.launch()
        yield running
    finally:
        running.stop()
        shutil.rmtree(cache)


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_artifact(tmp_path_factory.mktemp("artifact"))


@pytest.fixture(scope="session")
def models(artifact: Path, s3: Any, tmp_path_factory: pytest.TempPathFactory) -> Models:
    storage = s3.config
    uri = s3.fresh_uri()
    swapped = tmp_path_factory.mktemp("swapped") / "artifact"
    shutil.copytree(artifact, swapped)
    (swapped / SERVING_DOCUMENT_FILE).write_text(serving_document("positive", "negative"))
    published = [publish(uri, "reviews", storage, folder) for folder in (artifact, swapped)]
    access = Access(endpoint=s3.endpoint, credentials="output")
    return Models(storage, access, artifact, uri, *published)


@pytest.fixture(scope="session")
def ray(launched_ray: LocalRay, models: Models) -> LocalRay:
    """The same, started; it starts while the models are made, since either takes a quarter of a minute."""
    launched_ray.wait_started()
    return launched_ray
