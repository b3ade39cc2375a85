"""What a cluster needs before Luthier: names, KubeRay's operator, and an S3 server with buckets.

Owns their manifests (in manifests/) and waits until each is usable. Each `install_*` may be called again at any time.
The chart of Luthier itself is not installed here.
"""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from luthier_dev import binaries, network, steps
from luthier_dev.cluster import Cluster
from luthier_dev.errors import NotReady
from luthier_dev.kubectl import FIELD_MANAGER, KubectlFailed
from luthier_dev.paths import PACKAGE
from luthier_dev.seaweed import Credentials, identities_document, missing_bucket
from luthier_dev.waiting import wait_until

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


KUBERAY_NAMESPACE = "kuberay-system"
S3_NAMESPACE = "luthier-demo-storage"
S3_PORT = 8333
S3_REGION = "us-east-1"
BUCKETS = ("models", "data")


@dataclass(frozen=True)
class S3:
    """The S3 server of the cluster.

    Attributes:
        endpoint: URL inside the cluster, for specs.
        admin: identity that may do everything.
        reader: identity that may only read and list.
        buckets: buckets that exist.
    """

    endpoint: str
    admin: Credentials
    reader: Credentials
    buckets: tuple[str, ...]

    def secret(self, name: str, namespace: str, *, read_only: bool = False) -> dict[str, object]:
        """A Secret of the credentials, as Luthier's resources take it."""
        identity = self.reader if read_only else self.admin
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "stringData": {
                "AWS_ACCESS_KEY_ID": identity.access_key,
                "AWS_SECRET_ACCESS_KEY": identity.secret_key,
            },
        }


def install_dns(cluster: Cluster) -> None:
    """Install CoreDNS, on our own node only: other clusters bring theirs."""
    with steps.step("Install CoreDNS", usually_s=3):
        _apply(cluster, "coredns.yaml", image="luthier-coredns", ADDRESS=network.DNS_ADDRESS)
        wait_for_rollout(cluster, "kube-system", "coredns")


def install_kuberay(cluster: Cluster) -> None:
    """Install KubeRay's CRDs and operator, and wait until they are usable. An installed operator is kept."""
    if is_foreign(cluster, "rayservices.ray.io"):
        steps.say("KubeRay is already installed on this cluster; using it unchanged.")
        return
    cluster.load_images(["luthier-kuberay"])
    if _runs(cluster, KUBERAY_NAMESPACE, "kuberay-operator", "luthier-kuberay"):
        return
    with steps.step("Install KubeRay's operator", usually_s=6):
        binaries.ensure(["ray-operator"])
        crds = [path.read_text() for path in sorted(binaries.kuberay_crds().glob("*.yaml"))]
        cluster.kubectl.apply(*crds)
        names = ["rayclusters.ray.io", "rayjobs.ray.io", "rayservices.ray.io"]
        cluster.kubectl.wait_for_condition("Established", "customresourcedefinition", *names)
        _apply(cluster, "kuberay.yaml", image="luthier-kuberay", NAMESPACE=KUBERAY_NAMESPACE)
        wait_for_rollout(cluster, KUBERAY_NAMESPACE, "kuberay-operator")


def install_s3(cluster: Cluster, buckets: Sequence[str] = BUCKETS) -> S3:
    """Install an S3 server with buckets and wait until it answers. Its credentials are generated once."""
    cluster.load_images(["luthier-s3"])
    with steps.step("Install an S3 server", usually_s=5):
        admin, reader = _identities(cluster)
        _apply(
            cluster,
            "s3.yaml",
            image="luthier-s3",
            NAMESPACE=S3_NAMESPACE,
            BUCKETS=",".join(buckets),
            IDENTITIES=identities_document(admin, reader),
        )
        server = S3(f"http://s3.{S3_NAMESPACE}.svc:{S3_PORT}", admin, reader, tuple(buckets))
        wait_for_rollout(cluster, S3_NAMESPACE, "s3")
        with s3_url(cluster) as url:
            client = s3_client(url, admin)
            wait_until(lambda: missing_bucket(client, buckets), "the S3 server", timeout_s=60)
    return server


@contextmanager
def s3_url(cluster: Cluster) -> Iterator[str]:
    """URL of the S3 server as seen from this machine, while the context lasts."""
    with cluster.url_for_service(S3_NAMESPACE, "s3", S3_PORT) as url:
        yield url


def s3_client(url: str, identity: Credentials) -> S3Client:
    """A boto3 client of the S3 server, for use from this machine."""
    client: S3Client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name=S3_REGION,
        aws_access_key_id=identity.access_key,
        aws_secret_access_key=identity.secret_key,
        config=Config(
            connect_timeout=2,
            read_timeout=60,
            retries={"total_max_attempts": 3},
            s3={"addressing_style": "path"},
        ),
    )
    return client


def _identities(cluster: Cluster) -> tuple[Credentials, Credentials]:
    """The identities that the server has, or new ones."""
    if not _is_installed(cluster, "secret", "s3-identities", S3_NAMESPACE):
        return Credentials.generate(), Credentials.generate()
    secret = cluster.kubectl.get("secret", "s3-identities", "--namespace", S3_NAMESPACE)
    document = json.loads(base64.b64decode(secret["data"]["identities.json"]))
    keys = {each["name"]: each["credentials"][0] for each in document["identities"]}
    admin, reader = (Credentials(keys[n]["accessKey"], keys[n]["secretKey"]) for n in ("admin", "reader"))
    return admin, reader


def _runs(cluster: Cluster, namespace: str, deployment: str, image: str) -> bool:
    """Whether a deployment of the present image is available: its manifests need not be applied again."""
    found = cluster.kubectl(
        "get", "deployment", deployment, "--namespace", namespace, "--ignore-not-found", "--output=json"
    )
    if not found:
        return False
    body = json.loads(found)
    reference = body["spec"]["template"]["spec"]["containers"][0]["image"]
    return bool(reference == cluster.image_ref(image) and body["status"].get("availableReplicas", 0) > 0)


def is_foreign(cluster: Cluster, crd: str) -> bool:
    """Whether a CRD exists that somebody else applied."""
    if not _is_installed(cluster, "customresourcedefinition", crd):
        return False
    found = cluster.kubectl.get("customresourcedefinition", crd, "--show-managed-fields")
    return FIELD_MANAGER not in {each["manager"] for each in found["metadata"]["managedFields"]}


def _is_installed(cluster: Cluster, kind: str, name: str, namespace: str | None = None) -> bool:
    where = ["--namespace", namespace] if namespace else []
    return bool(cluster.kubectl("get", kind, name, *where, "--ignore-not-found", "--output=name").strip())


def _apply(cluster: Cluster, manifest: str, image: str, **values: str) -> None:
    text = (PACKAGE / "manifests" / manifest).read_text()
    cluster.kubectl.apply(string.Template(text).substitute(IMAGE=cluster.image_ref(image), **values))


def wait_for_rollout(cluster: Cluster, namespace: str, deployment: str, timeout_s: int = 120) -> None:
    """Return once a deployment is available; the error says what keeps it from becoming so."""
    where = ("--namespace", namespace)
    try:
        cluster.kubectl(
            *("rollout", "status", f"deployment/{deployment}", *where, f"--timeout={timeout_s}s"),
            timeout_s=timeout_s + 10,
        )
    except KubectlFailed as error:
        pods = cluster.kubectl("get", "pods", *where, "--output=wide")
        events = cluster.kubectl("get", "events", *where, "--field-selector=type=Warning")
        raise NotReady(f"{deployment} did not become available: {error}\n{pods}\n{events[-2000:]}") from error
