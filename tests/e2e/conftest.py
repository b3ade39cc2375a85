"""The real cluster that the end-to-end tests run on: brought up once, with images, KubeRay, S3 and the chart."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from luthier_dev import node
from luthier_dev.addons import s3_url
from luthier_dev.providers import NodeCluster, provider
from luthier_dev.setup import SECRET, make_namespace, set_up
from support.e2e.stories import Site

SET_UP_AND_ONE_TEST_S = 1800  # the first test pays for what is not built yet
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SET_UP_AND_ONE_TEST_S))


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """Everything up: `site.kubectl("get", "pods")`, `site.cluster.url_for_service(...)`, `site.s3`."""
    found = provider()
    started_here = isinstance(found, NodeCluster) and not node.is_well()
    cluster, storage = set_up()
    with s3_url(cluster) as url:
        yield Site(cluster, storage, url)
    if started_here:  # a cluster that was up before stays up
        cluster.down()


@pytest.fixture
def namespace(site: Site) -> Iterator[str]:
    """A fresh namespace that holds the Secret `s3-credentials`; gone after the test."""
    name = f"t-{secrets.token_hex(4)}"
    make_namespace(site.cluster, site.storage, name)
    assert SECRET in site.kubectl("get", "secrets", "--namespace", name, "--output=name")
    yield name
    site.kubectl("delete", "namespace", name, "--wait=false")
