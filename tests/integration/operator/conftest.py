"""The operator as a process of its own, against a real API server; tests play the node by writing pods' status."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from luthier_dev.controlplane import ControlPlane
from luthier_dev.paths import REPOSITORY
from support.operator.crowd import Crowd
from support.operator.namespace import Namespace
from support.operator.operator_process import OperatorProcess, as_chart, finetunejob, prepared

Raw = dict[str, Any]


@pytest.fixture(scope="session")
def cluster(control_plane: ControlPlane) -> ControlPlane:
    """The control plane with Luthier's CRDs."""
    control_plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
    crds = ("finetunejobs", "modeldeployments", "batchpredictions")
    control_plane.kubectl("wait", "--for=condition=Established", *(f"crd/{each}.luthier.dev" for each in crds))
    return control_plane


@pytest.fixture
def namespace(cluster: ControlPlane) -> Namespace:
    return Namespace(cluster)


@pytest.fixture
def operator_process() -> type[OperatorProcess]:
    """For tests that start operators of their own."""
    return OperatorProcess


@pytest.fixture
def chart_kubeconfig() -> Callable[..., Path]:
    """For tests that start operators of their own."""
    return as_chart


@pytest.fixture(scope="module")
def operator(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """A running operator with the chart's rights in the whole cluster, for all tests of a module."""
    folder = tmp_path_factory.mktemp("operator")
    process = OperatorProcess(as_chart(cluster, folder, "luthier"), folder)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        print(process.log)


@pytest.fixture
def own_operator(cluster: ControlPlane, namespace: Namespace, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator with the chart's rights in one test's namespace, and none elsewhere; the test starts it."""
    kubeconfig = as_chart(cluster, tmp_path, namespace.name, f"watchNamespaces={{{namespace.name}}}")
    process = OperatorProcess(kubeconfig, tmp_path, LUTHIER_WATCH_NAMESPACES=namespace.name)
    try:
        yield process
    finally:
        if process._process:
            process.kill()
            print(process.log)


@pytest.fixture(scope="session")
def make_finetunejob() -> Callable[..., Raw]:
    """For tests of several resources in one namespace."""
    return finetunejob


@pytest.fixture(scope="session")
def prepared_message() -> Callable[..., str]:
    """For tests that write termination messages of their own."""
    return prepared


@pytest.fixture
def crowd(namespace: Any, make_finetunejob: Callable[..., Raw], prepared_message: Callable[..., str]) -> Crowd:
    return Crowd(namespace, make_finetunejob, prepared_message)


@pytest.fixture
def no_bug(operator: Any) -> Iterator[None]:
    """Whatever happens, no reconcile fails by a mistake of the operator."""
    yield
    text, trouble = operator.get("/metrics")
    assert trouble is None
    errors = [line for line in text.splitlines() if line.startswith("luthier_reconcile_errors_total{")]
    assert not [line for line in errors if "bug" in line]
