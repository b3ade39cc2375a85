from __future__ import annotations

import httpx
import pytest

from luthier_dev import setup
from luthier_dev.addons import S3_NAMESPACE, S3_PORT

pytestmark = pytest.mark.e2e


def test_the_node_is_ready_and_every_pod_of_the_system_is_available(site):
    site.kubectl.wait_for_condition("Ready", "node")
    for namespace in ("kube-system", "kuberay-system", S3_NAMESPACE, setup.SYSTEM_NAMESPACE):
        site.kubectl.wait_for_condition("Available", "deployment", "--namespace", namespace)


def test_a_service_answers_this_machine_and_refuses_strangers(site):
    with site.cluster.url_for_service(S3_NAMESPACE, "s3", S3_PORT) as url:
        assert httpx.get(f"{url}/models").status_code == 403
    assert {bucket["Name"] for bucket in site.s3.list_buckets()["Buckets"]} >= {"models", "data"}


def test_a_pod_reaches_services_by_name_and_nothing_outside(site, namespace):
    script = (
        "import socket, urllib.request, urllib.error\n"
        "try: urllib.request.urlopen('ENDPOINT', timeout=10)\n"
        "except urllib.error.HTTPError as error: print('s3 answered', error.code)\n"
        "for host in ('198.51.100.1', 'example.org'):\n"
        "    try: socket.create_connection((host, 443), timeout=5); print(host, 'reached')\n"
        "    except OSError: print(host, 'not reached')\n"
    ).replace("ENDPOINT", site.storage.endpoint)
    image = site.cluster.image_ref("luthier-server")
    site.kubectl(
        *("run", "asker", "--namespace", namespace, f"--image={image}", "--restart=Never", "--command"),
        *("--", "python", "-c", script),
    )
    site.kubectl("wait", "pod/asker", "--namespace", namespace, "--for=jsonpath={.status.phase}=Succeeded")
    said = site.kubectl("logs", "asker", "--namespace", namespace).split("\n")
    assert said[:3] == ["s3 answered 403", "198.51.100.1 not reached", "example.org not reached"]


def test_setting_up_again_changes_nothing(site):
    def deployments() -> dict[str, str]:
        items = site.kubectl.get("deployments", "--all-namespaces")["items"]
        return {each["metadata"]["name"]: each["metadata"]["generation"] for each in items}

    before = deployments()
    _, storage = setup.set_up()
    assert deployments() == before
    assert storage == site.storage
