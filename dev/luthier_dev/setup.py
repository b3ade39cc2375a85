"""From a bare machine to a cluster with Luthier on it: what the demo and the e2e tests stand on.

Owns the order: cluster, images, KubeRay, S3, chart. Each part finds what is there, so running it again is quick.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from luthier_dev import addons, binaries, images, steps
from luthier_dev.addons import S3
from luthier_dev.charts import CHART
from luthier_dev.cluster import Cluster
from luthier_dev.providers import provider

RELEASE = "luthier"
SYSTEM_NAMESPACE = "luthier-system"
SECRET = "s3-credentials"


def set_up() -> tuple[Cluster, S3]:
    """Bring everything up; return the cluster and its S3 server.

    Raises:
        DevError: a step failed; the step has printed why.
    """
    cluster = provider()
    steps.say(f"Luthier on {cluster.description}")
    # Compiling Kubernetes needs CPU, building images needs network and disk: do both at once.
    with ThreadPoolExecutor(1) as side:
        built = side.submit(cluster.build_images, images.OWN)
        cluster.up()
        addons.install_kuberay(cluster)
        storage = addons.install_s3(cluster)
        built.result()
    cluster.load_images(images.OWN)
    install_chart(cluster)
    return cluster, storage


def install_chart(cluster: Cluster) -> None:
    """Install the chart, or upgrade it to what the sources say; return once the operator is available."""
    binaries.ensure(["helm"])
    with steps.step("helm install luthier charts/luthier", usually_s=8):
        command = [str(binaries.path("helm")), "upgrade", "--install", RELEASE, str(CHART)]
        command += [
            "--namespace",
            SYSTEM_NAMESPACE,
            "--create-namespace",
            "--take-ownership",  # of CRDs that were applied by hand, or kept by an earlier release
            "--wait",
            "--timeout",
            "3m",
            *_image_values(cluster),
        ]
        steps.run_logged(command, env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)})


def _image_values(cluster: Cluster) -> list[str]:
    """Return helm's arguments for the images that were built; the chart's defaults where none were."""
    parts = {"operator": "luthier-operator", "trainer": "luthier-trainer", "server": "luthier-server"}
    references = {part: cluster.image_ref(name) for part, name in parts.items()}
    return [
        word for part, reference in references.items() if reference for word in ("--set", f"{part}.image={reference}")
    ]


def make_namespace(cluster: Cluster, storage: S3, namespace: str) -> None:
    """Make a namespace that can reach the S3 server, as a user's would be."""
    cluster.kubectl.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}, storage.secret(SECRET, namespace)
    )
