"""Luthier's own server, as the cluster runs it: the image's environment, and the Serve config of the operator.

`now` is the server of this checkout. `before` is Q5, the server of an earlier commit, taken from the repository's
history: a front that owns `/`, and a revision in another process that it calls by handle.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.serving_bench.artifact import Artifact
from benchmarks.serving_bench.serve import ray_serve
from luthier_api.modeldeployment import ModelDeploymentSpec
from luthier_dev.paths import REPOSITORY
from luthier_operator.manifests import rayservice
from luthier_operator.manifests.access import Grant
from luthier_operator.model.views import Meta

BEFORE = "c8342e9"
_PACKAGES = ("crds", "artifacts", "serving")
_ENV = re.compile(r"^ENV ((?:.*\\\n)*.*)$", re.MULTILINE)


@contextmanager
def now(artifact: Artifact) -> Iterator[str]:
    """The server of this checkout."""
    with _server("Luthier", REPOSITORY, serve_config(artifact)) as url:
        yield url


@contextmanager
def before(artifact: Artifact) -> Iterator[str]:
    """The server of the earlier commit."""
    with tempfile.TemporaryDirectory() as folder:
        _check_out(BEFORE, Path(folder))
        with _server("Q5", Path(folder), serve_config_before(artifact)) as url:
            yield url


def serve_config(artifact: Artifact) -> dict[str, Any]:
    """Return the Serve config that the operator makes for one version of one model."""
    # The spec names an object in S3, the revision the folder: storage is not on a request's path.
    spec = ModelDeploymentSpec.model_validate({"model": {"fineTuneJobRef": {"name": artifact.name}}})
    revision = rayservice.revision(
        spec,
        version=artifact.version,
        uri=artifact.uri,
        digest=artifact.digest,
        grant=Grant("output", spec.model),
        retry="",
    )
    owner = Meta("ModelDeployment", "default", artifact.name, "uid", 1)
    config: dict[str, Any] = json.loads(rayservice.serve_config(owner, spec, rayservice.Layout(revision)))
    return config


def serve_config_before(artifact: Artifact) -> dict[str, Any]:
    """Return what the operator of the earlier commit made."""
    routes = [{"revision": "rev-1", "version": artifact.version, "weight": 100}]
    revision = {"name": "rev-1", "modelUri": artifact.uri, "version": artifact.version, "digest": artifact.digest}
    return {
        "proxy_location": "EveryNode",
        "http_options": {"keep_alive_timeout_s": 90},
        "logging_config": {"encoding": "JSON", "log_level": "INFO", "enable_access_log": False},
        "applications": [
            {
                "name": "front",
                "import_path": "luthier_serving.front:app",
                "route_prefix": "/",
                "args": {},
                "deployments": [{"name": "Front", "user_config": {"modelName": artifact.name, "routes": routes}}],
            },
            {
                "name": "rev-1",
                "import_path": "luthier_serving.revision:app",
                "route_prefix": None,
                "args": revision,
                "deployments": [{"name": "Revision", "num_replicas": 1}],
            },
        ],
    }


@contextmanager
def _server(name: str, checkout: Path, config: Mapping[str, Any]) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            **_image_settings(checkout / "serving" / "Dockerfile"),
            "PYTHONPATH": ":".join(str(checkout / package) for package in _PACKAGES),
            "LUTHIER_CACHE": cache,
        }
        with ray_serve(name, config, environment) as url:
            yield url


def _image_settings(dockerfile: Path) -> dict[str, str]:
    """Return Ray's settings in the environment of the image."""
    instructions = " ".join(_ENV.findall(dockerfile.read_text())).replace("\\\n", " ")
    settings = dict(each.split("=", 1) for each in shlex.split(instructions))
    return {name: value for name, value in settings.items() if name.startswith("RAY_")}


def _check_out(commit: str, folder: Path) -> None:
    command = ["git", "-C", str(REPOSITORY), "archive", "--format=tar", commit, *_PACKAGES]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        raise SystemExit(f"This clone lacks commit {commit}, whose server is Q5; `git fetch --unshallow` brings it.")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        tar.extractall(folder, filter="data")
