"""A server without replicas on a real cluster: it loses its pods, holds what comes, and wakes: `make rollouts`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from luthier_api.conditions import find_condition
from luthier_api.modeldeployment import ModelDeploymentStatus
from luthier_api.reasons import ConditionType, Reason
from luthier_dev.waiting import wait_until
from support.e2e.deployments import NAME, Deployment, deployed, told
from support.e2e.stories import Site

pytestmark = [pytest.mark.rollouts, pytest.mark.timeout(900)]

NAMESPACE = "t-zero"
SLEEPS = {"minReplicas": 0, "maxReplicas": 2, "downscaleDelaySeconds": 5, "upscaleDelaySeconds": 5}
PLACES = 12


@pytest.fixture(scope="module")
def deployment(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    runtime = {
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
        "maxQueuedRequests": PLACES,
    }
    folder = tmp_path_factory.mktemp("versions")
    with deployed(site, folder, NAMESPACE, replicas=None, autoscaling=SLEEPS, runtime=runtime) as found:
        yield found


@pytest.fixture
def url(deployment: Deployment) -> Iterator[str]:
    with deployment.site.cluster.url_for_service(NAMESPACE, f"{NAME}-serve-svc", 8000) as found:
        yield found


@pytest.fixture
def asleep(deployment: Deployment) -> Deployment:
    """The server without a replica and without a pod for one."""

    def sleeps(status: ModelDeploymentStatus) -> bool:
        ready = find_condition(status.conditions, ConditionType.READY)
        return bool(ready and ready.reason == Reason.IDLE and not deployment.pods("worker"))

    began = time.monotonic()
    deployment.until("asleep", sleeps, 300)
    print(f"    the last pod was gone after {time.monotonic() - began:.0f} s")
    return deployment


def test_requests_that_come_while_it_sleeps_wait_for_a_replica_and_none_fails(asleep: Deployment, url: str) -> None:
    ready, available = asleep.condition(ConditionType.READY), asleep.condition(ConditionType.AVAILABLE)
    assert ready and available and (ready.status, available.status) == ("True", "True")
    print(f"    {ready.message}")
    assert asleep.status.ready_replicas == 0
    with asleep.load(url, per_second=8, clients=8) as load:
        wait_until(lambda: None if load.answers else "no answer yet", "the first answer", 120)
        first_s = load.now
        asleep.until("awake", lambda s: s.ready_replicas == 1, 60)
        wait_until(lambda: None if load.now > first_s + 15 else "the load goes on", "15 s of load", 60)
    told(load)
    asleep.until("measured", lambda s: s.cold_start is not None, 30)
    print(f"    first answer after {first_s:.1f} s; {asleep.status.cold_start}")
    assert load.failures == []


def test_a_version_that_comes_while_it_sleeps_wakes_it_and_is_in_service_before_it_sleeps_again(
    asleep: Deployment, url: str
) -> None:
    new, began = asleep.versions.fresh(), time.monotonic()
    asleep.apply(new)
    asleep.until_serving(new, 240)
    print(f"    in service after {time.monotonic() - began:.0f} s")
    with asleep.load(url) as load:
        wait_until(lambda: None if load.now > 5 else "the load goes on", "5 s of load", 60)
    told(load)
    assert load.failures == [] and set(load.versions()) == {new.version}


def test_what_waits_is_bounded_and_the_rest_is_told_when_to_come_back(asleep: Deployment, url: str) -> None:
    def ask(number: int) -> httpx.Response:
        with httpx.Client(timeout=120, trust_env=False) as client:
            return client.post(f"{url}/predict", json={"text": "good film"})

    with ThreadPoolExecutor(3 * PLACES) as pool:
        answers = list(pool.map(ask, range(3 * PLACES)))
    codes = [answer.status_code for answer in answers]
    print(f"    {codes.count(200)} answered, {codes.count(503)} turned away")
    assert set(codes) == {200, 503} and codes.count(200) >= PLACES
    assert {answer.headers.get("Retry-After") for answer in answers if answer.status_code == 503} <= {"1", "5"}
