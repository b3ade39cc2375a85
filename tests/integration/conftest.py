"""A real API server for the integration tests; see luthier_dev.controlplane."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from luthier_dev.controlplane import ControlPlane


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """etcd, kube-apiserver and kube-controller-manager as processes; one set for the whole session."""
    with ControlPlane() as running:
        yield running
