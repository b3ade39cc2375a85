"""What the watches tell: what is kept of it, and whom it wakes. An event of nothing new wakes nobody."""

from collections.abc import Mapping
from typing import Any

import pytest

from luthier_operator.model import names
from luthier_operator.model.views import Key
from luthier_operator.store.informers import Objects, Told, Workloads
from luthier_operator.store.store import Cache, Kind

pytestmark = pytest.mark.unit

KEY = Key("FineTuneJob", "ns", "reviews")
FRONT = Key("ModelDeployment", "ns", "front")
NONE: set[tuple[str, str]] = set()


class Hearing:
    """A listener, and whom it woke."""

    def __init__(self, kind: Kind) -> None:
        self.woken: list[Key] = []
        self.cache = Cache()
        self.at_once: list[Key] = []
        self.told = Told(self.cache, self.at_once.append, self.woken.append)
        self.objects = Objects(kind, self.told)

    def job(self, version: int, status: Mapping[str, Any] | None = None, uid: str = "u1", of: str = "reviews") -> None:
        self.objects.put(job(version, status or {}, uid, of))


def job(version: int, status: Mapping[str, Any], uid: str = "u1", of: str = "reviews") -> dict[str, Any]:
    return {
        "kind": "Job",
        "metadata": {
            "name": "reviews-1-train",
            "namespace": "ns",
            "uid": uid,
            "resourceVersion": str(version),
            "labels": {names.FINETUNEJOB: of} if of else {},
        },
        "spec": {"template": {"spec": {"containers": [{"name": "main"}]}}},
        "status": dict(status),
    }


def deployment(version: int, follows: str = "reviews") -> dict[str, Any]:
    metadata = {"name": "front", "namespace": "ns", "uid": "d1", "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"model": {"fineTuneJobRef": {"name": follows}} if follows else {}}}


def test_an_event_that_tells_nothing_new_wakes_nobody() -> None:
    hearing = Hearing("Job")

    hearing.job(1, {"active": 1})
    hearing.job(2, {"active": 1, "uncountedTerminatedPods": {"succeeded": ["p"]}})
    assert hearing.woken == [KEY]

    hearing.job(3, {"active": 0, "failed": 1})
    assert hearing.woken == [KEY, KEY]


def test_the_end_of_an_object_wakes_although_nothing_of_it_has_changed() -> None:
    hearing = Hearing("Job")

    hearing.job(1)
    hearing.objects.drop("u1", 2)

    assert hearing.woken == [KEY, KEY] and not hearing.cache.jobs(KEY)


@pytest.mark.parametrize(("to", "there"), [("others", 1), ("", 0)])
def test_an_object_that_changes_hands_is_no_longer_found_where_it_was(to: str, there: int) -> None:
    hearing = Hearing("Job")

    hearing.job(1)
    hearing.job(2, of=to)

    assert (len(hearing.cache.jobs(KEY)), len(hearing.cache.jobs(Key("FineTuneJob", "ns", to)))) == (0, there)


def test_what_was_written_is_forgotten_by_a_list_that_is_newer_and_does_not_name_it() -> None:
    hearing = Hearing("Job")
    hearing.cache.wrote("Job", job(7, {}))

    hearing.objects.listed(None, 6, NONE)
    hearing.objects.listed("elsewhere", 8, NONE)
    hearing.objects.listed(None, 8, {("ns", "reviews-1-train")})
    assert hearing.cache.jobs(KEY) and not hearing.woken

    hearing.objects.listed(None, 8, NONE)
    assert not hearing.cache.jobs(KEY) and hearing.woken == [KEY]


def test_the_end_of_an_object_is_not_that_of_a_newer_one_of_its_name() -> None:
    hearing = Hearing("Job")
    hearing.job(1)
    hearing.cache.wrote("Job", job(7, {}, uid="u2"))

    hearing.objects.drop("u1", 5)

    (known,) = hearing.cache.jobs(KEY)
    assert known.uid == "u2"


def test_a_deployment_is_woken_by_what_it_follows_until_it_is_gone() -> None:
    hearing = Hearing("ModelDeployment")
    jobs = Objects("FineTuneJob", hearing.told)
    resource = {"metadata": {"name": "reviews", "namespace": "ns", "uid": "f1", "resourceVersion": "5"}, "spec": {}}

    hearing.objects.put(deployment(1))
    assert (hearing.at_once, hearing.woken) == ([FRONT], [KEY])
    jobs.put(resource)
    assert (hearing.at_once, hearing.woken) == ([FRONT, KEY], [KEY, FRONT])

    hearing.objects.drop("d1", 9)
    assert hearing.woken[2:] == [FRONT, KEY]
    jobs.drop("f1", 10)
    assert hearing.woken[4:] == [KEY]


def test_a_new_resource_is_looked_at_at_once_and_its_changes_with_what_changes_beside_it() -> None:
    hearing = Hearing("ModelDeployment")
    hearing.objects.put(deployment(1, follows=""))
    assert (hearing.at_once, hearing.woken) == ([FRONT], [])
    hearing.objects.put(deployment(2, follows=""))
    assert (hearing.at_once, hearing.woken) == ([FRONT], [FRONT])


def test_a_deployment_that_follows_nobody_any_more_is_not_woken() -> None:
    hearing = Hearing("ModelDeployment")
    hearing.objects.put(deployment(1))
    hearing.objects.put(deployment(2, follows=""))
    assert KEY not in hearing.told.followers


def test_a_workload_wakes_the_resource_whose_job_was_asked_about() -> None:
    hearing = Hearing("Job")
    hearing.job(1, uid="u1")
    workloads = Workloads(hearing.told)
    labels = {names.QUEUED_JOB: "u1"}
    raw = {"metadata": {"name": "w", "namespace": "ns", "uid": "w1", "resourceVersion": "4", "labels": labels}}

    workloads.put(raw)
    assert hearing.woken == [KEY]
    assert list(hearing.cache.workloads(KEY, hearing.cache.jobs(KEY))) == ["u1"]
    workloads.put(raw)
    workloads.drop("w1", 5)
    assert hearing.woken == [KEY, KEY, KEY] and not hearing.cache.workloads(KEY, hearing.cache.jobs(KEY))
