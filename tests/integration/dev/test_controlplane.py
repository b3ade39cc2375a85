from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

from luthier_dev import processes
from luthier_dev.controlplane import ControlPlane
from luthier_dev.kubectl import KubectlFailed

pytestmark = pytest.mark.integration


def test_what_was_written_is_there_after_the_api_server_crashed(control_plane: ControlPlane):
    control_plane.kubectl("create", "configmap", "kept", "--from-literal=a=1")
    control_plane.restart_apiserver()
    assert control_plane.kubectl("get", "configmap", "kept", "--output=jsonpath={.data.a}") == "1"


def test_a_service_account_may_do_what_rbac_says_and_no_more(control_plane: ControlPlane):
    control_plane.kubectl("create", "serviceaccount", "reader")
    control_plane.kubectl("create", "role", "reads", "--verb=get,list", "--resource=configmaps")
    control_plane.kubectl("create", "rolebinding", "reads", "--role=reads", "--serviceaccount=default:reader")
    token = control_plane.kubectl("create", "token", "reader").strip()
    as_reader = ("--token", token, "--server", control_plane.site.server, "--kubeconfig=/dev/null")
    authority = ("--certificate-authority", str(control_plane.site.pki / "ca.crt"))
    assert "kube-root-ca.crt" in control_plane.kubectl("get", "configmaps", *as_reader, *authority)
    with pytest.raises(KubectlFailed, match='cannot list resource "secrets"'):
        control_plane.kubectl("get", "secrets", *as_reader, *authority)


def test_a_killed_test_run_leaves_no_process_behind():
    script = (
        "import time\nfrom luthier_dev.controlplane import ControlPlane\n"
        "ControlPlane().start()\nprint('up', flush=True)\ntime.sleep(60)\n"
    )
    running = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline() == "up\n"
    children = psutil.Process(running.pid).children()
    assert {child.name() for child in children} == {"etcd", "kube-apiserver", "kube-controller-manager"}
    running.send_signal(signal.SIGKILL)
    running.communicate()
    processes.wait_until_gone(children, timeout_s=10)
