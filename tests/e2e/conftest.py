"""The real cluster that the end-to-end tests run on: brought up once, with images, KubeRay, S3 and the chart."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from luthier_dev.addons import S3, s3_client, s3_url
from luthier_dev.cluster import Cluster
from luthier_dev.kubectl import Kubectl
from luthier_dev.setup import SECRET, make_namespace, set_up

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SET_UP_AND_ONE_TEST_S = 1800  # the first test pays for what is not built yet
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SET_UP_AND_ONE_TEST_S))


@dataclass(frozen=True)
class Site:
    """A cluster with the chart installed, and its storage."""

    cluster: Cluster
    storage: S3
    storage_url: str
    """The S3 server as seen from this machine; `storage.endpoint` is for specs."""

    @property
    def kubectl(self) -> Kubectl:
        return self.cluster.kubectl

    @property
    def kubeconfig(self) -> Path:
        return self.cluster.kubeconfig

    @property
    def s3(self) -> S3Client:
        """A client with the identity that may do everything."""
        return s3_client(self.storage_url, self.storage.admin)


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """Everything up: `site.kubectl("get", "pods")`, `site.cluster.url_for_service(...)`, `site.s3`."""
    cluster, storage = set_up()
    with s3_url(cluster) as url:
        yield Site(cluster, storage, url)


@pytest.fixture
def namespace(site: Site) -> Iterator[str]:
    """A fresh namespace that holds the Secret `s3-credentials`; gone after the test."""
    name = f"t-{secrets.token_hex(4)}"
    make_namespace(site.cluster, site.storage, name)
    assert SECRET in site.kubectl("get", "secrets", "--namespace", name, "--output=name")
    yield name
    site.kubectl("delete", "namespace", name, "--wait=false")
