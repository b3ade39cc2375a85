"""`helm test` on a real cluster: a tiny FineTuneJob of the user's runs to its version, beside the operator."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator

import pytest

from luthier_dev import binaries
from luthier_dev.charts import CHART
from luthier_dev.setup import RELEASE, SECRET, SYSTEM_NAMESPACE
from support.e2e.stories import Site, finetunejob, upload

pytestmark = pytest.mark.e2e


def helm(site: Site, *arguments: str) -> str:
    command = [str(binaries.path("helm")), *arguments, "--namespace", SYSTEM_NAMESPACE]
    done = subprocess.run(
        command, env={**os.environ, "KUBECONFIG": str(site.kubeconfig)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def release(site: Site) -> Iterator[Site]:
    """The release with a spec for its test, and the Secret that this names; afterwards as before."""
    upload(site)
    site.kubectl.apply(site.storage.secret(SECRET, SYSTEM_NAMESPACE))
    spec = finetunejob(site, "helm-test", f"e2e-{secrets.token_hex(4)}")["spec"]
    upgrade = ["upgrade", RELEASE, str(CHART), "--reset-then-reuse-values", "--wait", "--set-json"]
    helm(site, *upgrade, f"test.finetuneJob={json.dumps(spec)}")
    yield site
    helm(site, *upgrade, "test.finetuneJob=null")
    site.kubectl("delete", "secret", SECRET, "--namespace", SYSTEM_NAMESPACE)


def test_helm_test_runs_a_tiny_job_to_its_version(release: Site) -> None:
    said = helm(release, "test", RELEASE, "--logs", "--timeout", "10m")
    assert "Phase:          Succeeded" in said and "is published." in said
    assert not release.kubectl.get("finetunejobs", "--namespace", SYSTEM_NAMESPACE)["items"]
