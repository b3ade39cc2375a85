"""What a user gets wrong, on a real cluster: one sentence where the user looks, no GPU asked for, nothing lost.

The data's own faults (quoting, encodings, sizes) are tabled in tests/integration/trainer, the API server's refusals in
tests/integration/operator; here each part of the cluster has its say once.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from luthier_api.reasons import ConditionType, Reason
from luthier_dev import samples
from luthier_dev.setup import make_namespace
from luthier_dev.waiting import wait_until
from luthier_dev.watching import Watched
from support.e2e.stories import Site, apply, as_csv, finetunejob, jobs, reviews, upload

pytestmark = pytest.mark.e2e

NAMESPACE = "t-bad-input"
DATA = "s3://data/e2e-bad"
# Less than Python needs before it comes to torch. With room for half of torch's import the kernel would rather read
# its libraries again and again from a slow disk, for minutes, than kill.
TINY = {"requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"memory": "32Mi"}}

# name: (fields of the spec that are wrong, reason, words that the sentence must have)
CASES: dict[str, tuple[dict[str, Any], Reason, tuple[str, ...]]] = {
    "no-bucket": (
        {"output": {"uri": "s3://no-such-bucket/x/"}},
        Reason.BUCKET_NOT_FOUND,
        ("no-such-bucket",),
    ),
    "wrong-key": (
        {"output": {"secretRef": {"name": "wrong-key"}}},
        Reason.STORAGE_DENIED,
        ("access key", "AWS_ACCESS_KEY_ID"),
    ),
    "no-secret": ({"output": {"secretRef": {"name": "absent"}}}, Reason.MISSING_SECRET, ('"absent" not found',)),
    "no-dataset": (
        {"dataset": {"train": {"uri": f"{DATA}/absent.csv"}}},
        Reason.INPUT_NOT_FOUND,
        ("absent.csv",),
    ),
    "no-column": (
        {"dataset": {"train": {"uri": f"{DATA}/reviews.csv", "textColumn": "review"}}},
        Reason.INVALID_DATA,
        ("review", "text", "label"),
    ),
    "empty-file": ({"dataset": {"train": {"uri": f"{DATA}/empty.csv"}}}, Reason.INVALID_DATA, ("empty",)),
    "one-label": ({"dataset": {"train": {"uri": f"{DATA}/one-label.csv"}}}, Reason.INVALID_DATA, ("label",)),
    "cut-weights": ({"model": {"uri": f"{DATA}/cut-model"}}, Reason.INVALID_MODEL, ("model.safetensors",)),
    "no-image": ({"image": "localhost/no-such-image:1"}, Reason.IMAGE_PULL_FAILED, ("no-such-image",)),
    "little-memory": ({"resources": TINY}, Reason.OUT_OF_MEMORY, ("resources.limits.memory",)),
    "no-gpu": ({"gpusPerNode": 1}, Reason.UNSCHEDULABLE, ("nvidia.com/gpu",)),
}
NEEDS_TRAIN = {"little-memory", "no-gpu"}
CAN_HEAL = {Reason.MISSING_SECRET, Reason.IMAGE_PULL_FAILED, Reason.UNSCHEDULABLE}


def upload_bad_things(site: Site) -> None:
    rows = reviews()
    site.s3.put_object(Bucket="data", Key="e2e-bad/reviews.csv", Body=as_csv(rows))
    site.s3.put_object(Bucket="data", Key="e2e-bad/empty.csv", Body=b"")
    same = [{**row, "label": "negative"} for row in rows]
    site.s3.put_object(Bucket="data", Key="e2e-bad/one-label.csv", Body=as_csv(same))
    for file in samples.base_model().iterdir():
        content = file.read_bytes()
        if file.name == "model.safetensors":
            (header,) = struct.unpack("<Q", content[:8])
            content = content[: 8 + header + 100_000]
        site.s3.put_object(Bucket="data", Key=f"e2e-bad/cut-model/{file.name}", Body=content)


@pytest.fixture(scope="module")
def bad(site: Site) -> Iterator[Site]:
    """All of it at once: the cluster has them wait for each other, the tests then do not."""
    site.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout_s=300)
    upload(site)
    upload_bad_things(site)
    make_namespace(site.cluster, site.storage, NAMESPACE)
    wrong = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "wrong"}
    site.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "wrong-key", "namespace": NAMESPACE},
            "stringData": wrong,
        }
    )
    apply(site, NAMESPACE, *(_spec(site, name, changes) for name, (changes, _, _) in CASES.items()))
    yield site
    site.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def _spec(site: Site, name: str, changes: dict[str, Any]) -> dict[str, Any]:
    document = finetunejob(site, name, "e2e-bad")
    for field, value in changes.items():
        before = document["spec"].get(field)
        document["spec"][field] = {**before, **value} if isinstance(before, dict) and field != "resources" else value
    document["spec"]["hyperparameters"]["seed"] = sum(name.encode())
    return document


@pytest.mark.parametrize("name", CASES)
def test_it_is_said_in_one_sentence(bad: Site, name: str) -> None:
    _, reason, words = CASES[name]
    watched = Watched(bad.kubectl, NAMESPACE, "finetunejob", name)
    seen: dict[str, Any] = {}

    def missing() -> str | None:
        conditions = watched.read().get("status", {}).get("conditions", [])
        seen.update({condition["type"]: condition for condition in conditions})
        ready = seen.get(ConditionType.READY, {})
        return None if ready.get("reason") == reason else json.dumps(ready)

    wait_until(missing, f"{name} to be {reason}", 400, interval_s=0.5)
    ready = seen[ConditionType.READY]
    assert ready["status"] == "False"
    for word in words:
        assert word in ready["message"], ready["message"]
    assert "Traceback" not in ready["message"] and len(ready["message"]) < 900
    telling = ConditionType.RECONCILING if reason in CAN_HEAL else ConditionType.STALLED
    assert seen[telling]["status"] == "True"
    events = bad.kubectl("get", "events", "--namespace", NAMESPACE, f"--field-selector=involvedObject.name={name}")
    assert reason in events
    trains = [job for job in jobs(bad, NAMESPACE).values() if job.startswith(f"{name}-") and job.endswith("-train")]
    assert bool(trains) == (name in NEEDS_TRAIN), "a GPU was asked for where prepare could have known"


def test_a_missing_secret_heals_by_itself_when_it_comes(bad: Site) -> None:
    bad.kubectl.apply(bad.storage.secret("absent", NAMESPACE))
    watched = Watched(bad.kubectl, NAMESPACE, "finetunejob", "no-secret")
    watched.wait_until_ready(600, lambda status: str(status.get("phase")))


def test_none_of_them_restarts_without_end(bad: Site) -> None:
    pods = bad.kubectl.get("pods", "--namespace", NAMESPACE)["items"]
    restarts = [status.get("restartCount", 0) for pod in pods for status in pod["status"].get("containerStatuses", [])]
    assert not any(restarts)
    for name in CASES:
        mine = [job for job in jobs(bad, NAMESPACE).values() if job.startswith(f"{name}-")]
        assert len(mine) <= 2, mine
