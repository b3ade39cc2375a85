"""The shell's own small rules: one reconcile at a time, own writes are seen, errors have one meaning."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier_api.finetunejob import FineTuneJobStatus
from luthier_operator.apply import Applier, Writes
from luthier_operator.kube.errors import (
    ApiNotInstalled,
    ClusterError,
    Conflict,
    Exists,
    Expired,
    Gone,
    QuotaExceeded,
    Refused,
    Transient,
    Unexpected,
    error_of,
)
from luthier_operator.model.actions import Plan
from luthier_operator.model.merge_patch import merge_patch
from luthier_operator.model.views import Key, Meta
from luthier_operator.ops.settings import Settings, SettingsError
from luthier_operator.store.store import Store, owner_of
from luthier_operator.store.workqueue import RetryLater, WorkQueue

pytestmark = pytest.mark.unit


async def run(queue: WorkQueue[str], until: asyncio.Event) -> None:
    task = asyncio.create_task(queue.run())
    async with asyncio.timeout(5):
        await until.wait()
    task.cancel()


async def test_a_key_is_reconciled_by_one_worker_at_a_time_and_no_wake_up_is_lost() -> None:
    at_work, most, calls = 0, 0, []
    finished = asyncio.Event()

    async def reconcile(key: str) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        calls.append(key)
        if len(calls) == 1:
            queue.wake(key)  # arrives while it is at work
            queue.wake(key)
        await asyncio.sleep(0)
        at_work -= 1
        if len(calls) == 2:
            finished.set()

    queue: WorkQueue[str] = WorkQueue(reconcile, workers=4)
    queue.wake("a")
    queue.wake("a")
    await run(queue, finished)
    assert (most, calls) == (1, ["a", "a"])


async def test_different_keys_are_reconciled_side_by_side() -> None:
    both = asyncio.Barrier(2)
    finished = asyncio.Event()

    async def reconcile(_: str) -> None:
        await both.wait()
        finished.set()

    queue: WorkQueue[str] = WorkQueue(reconcile, workers=2)
    queue.wake("a")
    queue.wake("b")
    await run(queue, finished)


async def test_failures_are_tried_again_later_each_time_and_success_forgets_them() -> None:
    loop, times, finished = asyncio.get_running_loop(), [], asyncio.Event()

    async def reconcile(_: str) -> None:
        times.append(loop.time())
        if len(times) < 4:
            raise RetryLater("not yet") if len(times) < 3 else RuntimeError("a bug is retried too")
        finished.set()

    queue: WorkQueue[str] = WorkQueue(reconcile, workers=1, first_delay_s=0.01)
    queue.wake("a")
    await run(queue, finished)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[0] >= 0.009 and gaps[1] >= 0.019 and gaps[2] >= 0.039


async def test_what_is_gone_is_not_looked_at_again_and_leaves_nothing() -> None:
    looked: list[str] = []
    finished = asyncio.Event()

    async def reconcile(key: str) -> Literal["gone"]:
        looked.append(key)
        finished.set()
        return "gone"

    queue: WorkQueue[str] = WorkQueue(reconcile, workers=1)
    queue.wake_after("a", 0.02)
    queue.wake("a")
    await run(queue, finished)
    finished.clear()
    queue.wake_after("b", 0.05)
    await run(queue, finished)
    assert looked == ["a", "b"] and not queue._timers


async def test_of_several_wishes_to_be_woken_later_the_earliest_holds() -> None:
    finished, count = asyncio.Event(), 0

    async def reconcile(_: str) -> None:
        nonlocal count
        count += 1
        finished.set()

    queue: WorkQueue[str] = WorkQueue(reconcile, workers=1)
    for delay in (60.0, 0.01, 30.0):
        queue.wake_after("a", delay)
    await run(queue, finished)
    assert count == 1


def job(version: int, **metadata: Any) -> dict[str, Any]:
    labels = {"luthier.dev/finetunejob": "reviews"}
    meta = {"name": "j", "namespace": "n", "uid": "u", "resourceVersion": str(version), "labels": labels, **metadata}
    return {"kind": "Job", "metadata": meta, "spec": {"template": {"spec": {"containers": [{}]}}}}


KEY = Key("FineTuneJob", "n", "reviews")


def store_with(*jobs: dict[str, Any]) -> Store:
    store = Store()
    for each in jobs:
        store.put("Job", each)
    return store


def test_what_was_written_is_seen_until_the_watch_has_caught_up() -> None:
    store = store_with()
    store.wrote("Job", job(5, annotations={"luthier.dev/spec-hash": "written"}))
    assert [j.spec_hash for j in store.jobs(KEY)] == ["written"]
    store.put("Job", job(4))
    assert [j.spec_hash for j in store.jobs(KEY)] == ["written"]
    store.put("Job", job(5))
    assert [j.spec_hash for j in store.jobs(KEY)] == [""]


def test_a_newer_word_of_the_watch_goes_before_what_was_written() -> None:
    store = store_with(job(7, annotations={"luthier.dev/spec-hash": "new"}))
    store.wrote("Job", job(6))
    assert [j.spec_hash for j in store.jobs(KEY)] == ["new"]


def test_a_deletion_that_the_watch_delivered_first_leaves_no_ghost() -> None:
    store = store_with()
    store.wrote("Job", job(9, deletionTimestamp="2026-01-01T00:00:00Z"))
    assert not store.jobs(KEY)


def test_the_answer_to_a_write_that_comes_after_the_deletion_leaves_no_ghost() -> None:
    store = store_with(job(5))
    store.drop("Job", "u", 7)
    store.wrote("Job", job(6))
    assert not store.jobs(KEY)
    store.wrote("Job", job(9, uid="another"))
    assert store.jobs(KEY)


def test_objects_of_two_kinds_of_owner_with_one_name_are_kept_apart() -> None:
    pod = {"metadata": {"namespace": "n", "labels": {"luthier.dev/modeldeployment": "reviews"}}}
    assert owner_of("Pod", pod) == Key("ModelDeployment", "n", "reviews")
    assert owner_of("Job", job(1)) == KEY


def answer(code: int, reason: str = "", message: str = "m", **details: str) -> ClusterError:
    body = json.dumps({"kind": "Status", "reason": reason, "message": message, "details": details})
    return error_of(code, body.encode(), {"Retry-After": "7"})


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answer(404, "NotFound", name="j"), Gone),
        (answer(404, "NotFound"), ApiNotInstalled),
        (error_of(404, b"404 page not found", {}), ApiNotInstalled),
        (answer(422, "Invalid"), Refused),
        (answer(403, "Forbidden", "exceeded quota: jobs"), QuotaExceeded),
        (answer(403, "Forbidden", "namespace n is being terminated"), Gone),
        (answer(403, "Forbidden", "cannot create jobs"), Unexpected),
        (answer(401), Transient),
        (answer(410, "Expired"), Expired),
        (answer(409, "Conflict"), Conflict),
        (answer(409, "AlreadyExists"), Exists),
        (answer(429), Transient),
        (answer(503), Transient),
        (error_of(502, b"<html>bad gateway</html>", {}), Transient),
    ],
)
def test_each_answer_of_the_api_server_has_one_meaning(error: ClusterError, kind: type) -> None:
    assert type(error) is kind


def test_the_server_s_wish_to_be_left_alone_is_kept() -> None:
    error = answer(429)
    assert isinstance(error, Transient) and error.retry_after_s == 7


def apply_merge(target: Any, patch: Any) -> Any:
    """RFC 7386, as its own text has it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = apply_merge(result.get(key), value)
    return result


documents = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from("abcd"), documents, max_size=4)


@settings(max_examples=40, deadline=None)
@given(objects, objects)
def test_a_merge_patch_makes_the_new_of_the_old_and_is_empty_for_equals(old: Any, new: Any) -> None:
    assert apply_merge(old, merge_patch(old, new)) == new
    assert merge_patch(new, new) == {}


IMAGES = {"LUTHIER_TRAINER_IMAGE": "t", "LUTHIER_SERVER_IMAGE": "s"}


def test_settings_are_read_from_the_environment() -> None:
    found = Settings.from_environment(
        {
            **IMAGES,
            "LUTHIER_WATCH_NAMESPACES": "a, b",
            "LUTHIER_TRAIN_RESOURCES": '{"limits": {"memory": "4Gi"}}',
            "LUTHIER_TRAIN_GRACE_S": "300",
            "LUTHIER_SERVICE_PORT": "set by Kubernetes",
            "PATH": "/bin",
        }
    )
    assert found.watch_namespaces == ["a", "b"]
    assert found.defaults().train.limits == {"memory": "4Gi"}
    assert found.defaults().train_grace_s == 300
    assert Settings.from_environment({**IMAGES, "LUTHIER_WATCH_NAMESPACES": ""}).watch_namespaces == []


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({}, "LUTHIER_TRAINER_IMAGE"),
        ({**IMAGES, "LUTHIER_WORKERS": "many"}, "LUTHIER_WORKERS"),
        ({**IMAGES, "LUTHIER_TRAIN_GRACE_S": "0"}, "LUTHIER_TRAIN_GRACE_S"),
    ],
)
def test_a_bad_setting_is_named(environment: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        Settings.from_environment(environment)


class Accepting(Applier):
    """Writes nothing, and is content."""

    def __init__(self) -> None: ...

    async def status(self, meta: Meta, version: int, merge: dict[str, object]) -> int:
        return version + 1


@pytest.mark.parametrize(
    ("change", "level"),
    [
        ({"progress": {"step": 2, "totalSteps": 9, "changedAt": "2026-01-01T00:00:00Z"}}, "DEBUG"),
        ({"phase": "Succeeded"}, "INFO"),
    ],
)
async def test_figures_of_a_training_are_no_news_for_the_log(
    caplog: pytest.LogCaptureFixture, change: dict[str, Any], level: str
) -> None:
    before = FineTuneJobStatus(phase="Training")
    meta = Meta("FineTuneJob", "team", "reviews", "uid", 1)
    with caplog.at_level(logging.DEBUG, "luthier_operator.apply"):
        await Writes(Accepting(), meta, 1, before, "now").carry_out(Plan(status=before.to_wire() | change))
    assert [(record.levelname, record.message) for record in caplog.records] == [
        (level, f"status {change.get('phase', 'Training')}")
    ]
