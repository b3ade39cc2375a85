"""A second controller that writes a Job's `suspend`, on a real API server: it is respected and named, never fought."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.integration

OTHER = "other-controller"


def write_suspend(namespace: Any, job: str, wanted: bool) -> None:
    patch = json.dumps({"spec": {"suspend": wanted}})
    namespace.kubectl("patch", "job", job, "--type=merge", "-p", patch, f"--field-manager={OTHER}")


def test_a_job_that_another_controller_suspends_stays_so_whatever_wakes_the_operator(
    operator: Any, namespace: Any
) -> None:
    namespace.submit()
    namespace.await_pod("prepare")
    (name,) = namespace.jobs
    write_suspend(namespace, name, True)
    status = namespace.await_reason("ftj", "reviews", "Suspended")["status"]
    ready = next(c for c in status["conditions"] if c["type"] == "Ready")
    assert OTHER in ready["message"] and "kubectl patch job" in ready["message"]
    for number in range(3):
        namespace.submit(ttlSecondsAfterFinished=1000 + number)
        seen = namespace.get("ftj", "reviews")["metadata"]["generation"]
        namespace.until(
            "a look", lambda seen=seen: namespace.get("ftj", "reviews")["status"]["observedGeneration"] == seen
        )
    job = json.loads(namespace.kubectl("get", "job", name, "-o", "json", "--show-managed-fields"))
    fields = job["metadata"]["managedFields"]
    assert job["spec"]["suspend"] is True
    assert [e["manager"] for e in fields if "f:suspend" in e["fieldsV1"].get("f:spec", {})] == [OTHER]
    write_suspend(namespace, name, False)
    namespace.run_through()


def test_a_controller_that_resumes_what_the_user_suspends_gets_two_turns_and_no_third(
    operator: Any, namespace: Any
) -> None:
    namespace.submit()
    namespace.prepare_ends()
    namespace.await_pod("train")
    name = next(job for job in namespace.jobs if job.endswith("-train"))
    uid = namespace.get("job", name)["metadata"]["uid"]
    namespace.merge("ftj", "reviews", {"spec": {"suspend": True}})
    for _ in range(2):
        namespace.until("the operator's turn", lambda: namespace.get("job", name)["spec"]["suspend"])
        write_suspend(namespace, name, False)
    namespace.until("the Job to go", lambda: name not in namespace.jobs)
    namespace.merge("ftj", "reviews", {"spec": {"suspend": False}})
    namespace.until("another Job", lambda: name in namespace.jobs)
    assert namespace.get("job", name)["metadata"]["uid"] != uid
    namespace.train_ends()
    namespace.until("the version", lambda: namespace.version == "v1")
