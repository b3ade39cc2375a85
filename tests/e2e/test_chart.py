"""`helm test` on a real cluster: a tiny FineTuneJob of the user's runs to its version, beside the operator."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

import pytest

from luthier_dev.setup import RELEASE, SECRET, SYSTEM_NAMESPACE
from support.e2e.release import helm, upgrade
from support.e2e.stories import Site, finetunejob, upload

pytestmark = pytest.mark.e2e


@pytest.fixture
def release(site: Site) -> Iterator[Site]:
    """The release with a spec for its test, and the Secret that this names; afterwards as before."""
    upload(site)
    site.kubectl.apply(site.storage.secret(SECRET, SYSTEM_NAMESPACE))
    spec = finetunejob(site, "helm-test", f"e2e-{secrets.token_hex(4)}")["spec"]
    upgrade(site, f"test.finetuneJob={json.dumps(spec)}")
    yield site
    upgrade(site, "test.finetuneJob=null")
    site.kubectl("delete", "secret", SECRET, "--namespace", SYSTEM_NAMESPACE)


def test_helm_test_runs_a_tiny_job_to_its_version(release: Site) -> None:
    said = helm(release, "test", RELEASE, "--logs", "--timeout", "10m")
    assert "Phase:          Succeeded" in said and "is published." in said
    assert not release.kubectl.get("finetunejobs", "--namespace", SYSTEM_NAMESPACE)["items"]
