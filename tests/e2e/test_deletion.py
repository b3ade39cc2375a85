"""Versions go when they should, on a real cluster and real storage: over the limit, and with their resource."""

from __future__ import annotations

import secrets

import pytest

from luthier_dev.waiting import wait_until
from luthier_dev.watching import describe_training
from support.e2e.stories import Site, Training, apply, finetunejob, upload

pytestmark = pytest.mark.e2e

NAME = "fleeting"


def left(run: Training, below: str) -> list[str]:
    """Keys below a folder of the model that hold anything: the seal of a version that was removed is empty."""
    prefix = f"{run.folder}/{NAME}/{below}/"
    found = run.site.s3.list_objects_v2(Bucket="models", Prefix=prefix).get("Contents", [])
    return [entry["Key"].removeprefix(prefix) for entry in found if entry["Size"] > 0]


def versions(run: Training) -> list[str]:
    return [key.partition("/")[0] for key in left(run, "versions") if key.endswith("/manifest.json")]


def test_the_version_over_the_limit_goes_and_the_last_one_with_the_resource(site: Site, namespace: str) -> None:
    upload(site)
    run = Training(site, namespace, NAME, f"e2e-{secrets.token_hex(4)}")
    document = finetunejob(site, NAME, run.folder, versionHistoryLimit=1, deletionPolicy="Delete")
    apply(site, namespace, document)
    run.watched.wait_until_ready(600, describe_training)
    (first,) = versions(run)

    document["spec"]["hyperparameters"]["learningRate"] = "2e-4"
    apply(site, namespace, document)
    run.watched.wait_until_ready(600, describe_training)
    run.until(lambda status: [each.version for each in status.versions] == versions(run), "rid of the first version")
    (second,) = versions(run)
    assert second != first and not [key for key in left(run, "versions") if key.startswith(first)]

    site.kubectl("delete", "finetunejob", NAME, "--namespace", namespace, "--wait=true", timeout_s=300)
    assert left(run, "versions") == left(run, "checkpoints") == []
    events = site.kubectl.get("events", "--namespace", namespace)["items"]
    told = [event["message"] for event in events if event["reason"] == "Removed"]
    assert told == [f"Versions removed from storage: {second}."]

    def still_there() -> str | None:
        pods = site.kubectl.get("pods", "--namespace", namespace)["items"]
        busy = [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] in ("Pending", "Running")]
        return f"{busy} are there" if busy else None

    wait_until(still_there, "nothing to be left running", 60)
