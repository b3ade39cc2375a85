"""docs/notebook.ipynb, executed: a kernel, the real API server, the operator and S3.

The test plays the node, KubeRay and the model. `LUTHIER_WRITE_NOTEBOOK=1` writes the outputs into the page.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from luthier_api.documents import Published, Result
from luthier_artifacts import Metadata, PublishedVersion, open_registry
from luthier_dev.paths import REPOSITORY
from support.cli.model import played_model
from support.operator.endpoints import Endpoint, answer
from support.operator.kuberay import Server, install_kuberay
from support.operator.operator_process import sha
from support.s3 import S3

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PAGE = REPOSITORY / "docs" / "notebook.ipynb"
METRICS = {"eval_accuracy": 0.94, "eval_f1_macro": 0.93, "untrained_accuracy": 0.5, "baseline_majority_accuracy": 0.5}
POD = "127.0.91.1"


@pytest.fixture
def version(s3: S3, tmp_path: Path) -> PublishedVersion:
    """What the training that is played publishes."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "report.html").write_text("<h1>Report</h1><p>Accuracy on 40 held-out texts: 0.94.</p>")
    return open_registry("s3://models/registry", "reviews", s3.config).publish(
        files, sha("n"), Metadata(metrics=METRICS)
    )


@pytest.fixture
def played(namespace: Any, version: PublishedVersion) -> Iterator[Server]:
    """A life that goes on by itself: each pod ends well, and the server runs."""
    server = Server(namespace)
    progress = answer(stage="Training", step=48, totalSteps=69, epoch=2.1, etaSeconds=4, metrics={"loss": 0.21})
    endpoint = Endpoint(POD, lambda connection, _: connection.sendall(progress))
    life = threading.Thread(target=_live, args=(namespace, version, server))
    life.start()
    yield server
    life.join()
    endpoint.close()
    server.close()


def _live(namespace: Any, version: PublishedVersion, server: Server) -> None:
    namespace.prepare_ends("n")
    pod = namespace.await_pod("train")
    namespace.play(pod, "Running", {"running": {}}, podIP=POD, podIPs=[{"ip": POD}])
    namespace.until("progress", lambda: namespace.get("ftj", "reviews")["status"].get("progress"))
    document = Published(
        run_key=sha("n"),
        version=version.version,
        uri=version.uri,
        digest=version.digest,
        size_bytes=version.size_bytes,
        metrics={name: str(value) for name, value in METRICS.items()},
    )
    namespace.end(namespace.await_pod("train"), 0, Result(published=document).to_termination_message())
    namespace.until("the server", lambda: namespace.all("rayservice"))
    server.tell()


def test_every_cell_of_the_notebook_runs(
    operator: Any, cluster: Any, namespace: Any, s3: S3, played: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    install_kuberay(cluster)
    for name, value in {
        "KUBECONFIG": str(_kubeconfig(cluster, namespace, tmp_path)),
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_ENDPOINT_URL": s3.endpoint,
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }.items():
        monkeypatch.setenv(name, value)
    page = nbformat.read(PAGE, as_version=4)
    with played_model(namespace):
        nbclient.NotebookClient(page, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {cell["id"]: _text(cell) for cell in page["cells"] if cell["cell_type"] == "code"}
    assert "textColumn: text" in shown["from-csv"]
    assert "Published" in shown["apply"]
    assert "accuracy" in shown["metrics"] and "0.94" in shown["metrics"] and "majority" in shown["metrics"]
    assert "Accuracy on 40 held-out texts" in shown["report"]
    assert "Serving" in shown["deploy"]
    assert shown["predict"].splitlines() == ["positive 0.97 Works perfectly.", "negative 0.97 It broke."]
    assert "'positive'" in shown["await"]
    assert "spec.replicas" in shown["wrong"]
    if os.environ.get("LUTHIER_WRITE_NOTEBOOK"):
        nbformat.write(page, PAGE)


def _kubeconfig(cluster: Any, namespace: Any, folder: Path) -> Path:
    """The administrator's, with the test's namespace as the context's own."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["contexts"][0]["context"]["namespace"] = namespace.name
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def _text(cell: Any) -> str:
    """Return all that a cell shows, as text and as HTML."""
    shown = []
    for output in cell["outputs"]:
        shown += [output.get("text", ""), *(str(value) for value in output.get("data", {}).values())]
    return "\n".join(shown)
