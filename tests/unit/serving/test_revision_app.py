"""The application of a revision: what its builder makes of the args, and how a replica computes the calls it gets."""

import asyncio
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from luthier_api.documents import RevisionConfig
from luthier_api.reasons import Reason
from luthier_serving.answers import Row, Text, Work
from luthier_serving.errors import LoadError
from support.serving.doubles import MODEL, row
from support.serving.ray_applications import revision

pytestmark = pytest.mark.unit


def config(**changes: Any) -> RevisionConfig:
    fields = {"name": "rev-1", "model_uri": "s3://models/m/versions/v", "version": "v", "digest": "sha256:" + "0" * 64}
    return RevisionConfig(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"max_ongoing_requests": 64, "ray_actor_options": {"num_cpus": 1, "num_gpus": 0}}),
        ({"max_ongoing_requests": 7}, {"max_ongoing_requests": 7}),
        ({"gpus_per_replica": 1}, {"ray_actor_options": {"num_cpus": 1, "num_gpus": 1}}),
    ],
)
def test_a_replica_is_sized_as_its_config_says(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    options = revision.deployment_options(config(**changes))
    assert {key: options[key] for key in expected} == expected
    assert options["max_replicas_per_node"] == 1, "the next revision needs the other slot of the pod"
    assert revision.app(config(**changes).to_wire())


def test_how_many_replicas_there_are_is_left_to_the_serve_config() -> None:
    assert not {"num_replicas", "autoscaling_config"} & set(revision.deployment_options(config()))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({}, "not a RevisionConfig"),
        (config().to_wire() | {"colour": "red"}, "colour"),
        (config().to_wire() | {"replicas": 2}, "replicas"),
    ],
)
def test_wrong_args_are_an_error_in_one_sentence(args: dict[str, Any], words: str) -> None:
    with pytest.raises(LoadError, match=words) as error:
        revision.app(args)
    assert error.value.reason is Reason.CONFIG_ERROR
    assert "\n" not in str(error.value)


def test_a_load_error_keeps_its_reason_on_the_way_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(LoadError(Reason.INTEGRITY_ERROR, "one byte\n differs.")))
    assert str(error) == "IntegrityError: one byte differs."


WORK = Work(started_ns=7, tokenize_s=0.001, compute_s=0.002, tokens=9)


class HeldModel:
    """Computes when it is allowed to; remembers what it was given together, and in which threads."""

    def __init__(self, *, merges_calls: bool) -> None:
        self.info, self.work = MODEL, WORK
        self.merges_calls = merges_calls
        self.batches: list[list[Text]] = []
        self.threads: set[str] = set()
        self.allowed = threading.Event()

    def predict(self, texts: Sequence[Text]) -> list[Row]:
        self.batches.append(list(texts))
        self.threads.add(threading.current_thread().name)
        assert self.allowed.wait(10)
        if "crash" in texts:
            raise RuntimeError("out of luck")
        return [row(text) for text in texts]


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Any]]:
    """Start a replica around a model, as Ray Serve does."""
    replicas = []

    async def started(model: HeldModel, **changes: Any) -> Any:
        loaded_with = []

        def load(given: RevisionConfig) -> HeldModel:
            loaded_with.append(given)
            return model

        context = SimpleNamespace(replica_id=SimpleNamespace(unique_id="replica-7"))
        monkeypatch.setattr(revision, "load_model", load)
        monkeypatch.setattr(revision.serve, "get_replica_context", lambda: context)
        replica = revision.RevisionReplica.__new__(revision.RevisionReplica)
        await replica.__init__(config(**changes).to_json())
        assert loaded_with == [config(**changes)]
        replicas.append(replica)
        return replica

    yield started
    for replica in replicas:
        replica._worker.cancel()
        replica._pool.shutdown()


async def in_flight(replica: Any, *calls: list[Text]) -> list["asyncio.Task[Any]"]:
    tasks = [asyncio.create_task(replica.predict(texts)) for texts in calls]
    await asyncio.sleep(0)
    return tasks


async def test_each_call_gets_its_own_rows_and_says_who_computed_them(start: Callable[..., Any]) -> None:
    model = HeldModel(merges_calls=False)
    model.allowed.set()
    replica = await start(model)
    calls: list[list[Text]] = [["a", "b"], ["c"], ["d", "e", "f"]]
    answers = await asyncio.gather(*await in_flight(replica, *calls))
    assert [answer.rows for answer in answers] == [[row(text) for text in texts] for texts in calls]
    assert {(answer.model, answer.replica, answer.work) for answer in answers} == {(MODEL, "replica-7", WORK)}
    assert model.batches == calls, "on a CPU calls are not merged"
    assert threading.current_thread().name not in model.threads, "the event loop stays free"
    assert await replica.describe() == MODEL
    await replica.check_health()


async def test_on_a_gpu_calls_that_wait_are_computed_together_up_to_the_token_budget(start: Callable[..., Any]) -> None:
    model = HeldModel(merges_calls=True)
    replica = await start(model, max_batch_tokens=4 * revision.TOKENS_OF_A_COMMON_TEXT)
    first = await in_flight(replica, ["first"])
    while not model.batches:
        await asyncio.sleep(0.001)
    calls: list[list[Text]] = [["a"], ["b", "c"], ["d"], ["e"], ["f"]]
    rest = await in_flight(replica, *calls)
    model.allowed.set()
    answers = await asyncio.gather(*first, *rest)
    assert model.batches == [["first"], ["a", "b", "c", "d"], ["e", "f"]]
    assert [answer.rows for answer in answers[1:]] == [[row(text) for text in texts] for texts in calls]


async def test_a_call_that_is_cancelled_is_not_computed_and_its_neighbours_get_their_own_rows(
    start: Callable[..., Any],
) -> None:
    model = HeldModel(merges_calls=True)
    replica = await start(model)
    first = await in_flight(replica, ["first"])
    while not model.batches:
        await asyncio.sleep(0.001)
    waits, stays = await in_flight(replica, ["leaves before"], ["stays", "stays too"])
    waits.cancel()
    await asyncio.wait([waits])
    model.allowed.set()
    assert (await stays).rows == [row("stays"), row("stays too")]
    await first[0]
    assert model.batches == [["first"], ["stays", "stays too"]]
    model.allowed.clear()
    leaves, remains = await in_flight(replica, ["leaves meanwhile"], ["remains"])
    while len(model.batches) < 3:
        await asyncio.sleep(0.001)
    leaves.cancel()
    await asyncio.wait([leaves])
    model.allowed.set()
    assert (await remains).rows == [row("remains")]


async def test_a_batch_that_fails_fails_for_its_own_calls_and_the_next_is_computed(start: Callable[..., Any]) -> None:
    model = HeldModel(merges_calls=False)
    model.allowed.set()
    replica = await start(model)
    failed, answered = await in_flight(replica, ["crash"], ["a"])
    async with asyncio.timeout(10):
        with pytest.raises(RuntimeError, match="out of luck"):
            await failed
        assert (await answered).rows == [row("a")]
    await replica.check_health()


async def test_a_replica_that_no_longer_computes_is_unhealthy(start: Callable[..., Any]) -> None:
    replica = await start(HeldModel(merges_calls=False))
    replica._worker.cancel()
    await asyncio.wait([replica._worker])
    with pytest.raises(RuntimeError, match="has ended"):
        await replica.check_health()


async def test_a_replica_whose_model_hangs_is_unhealthy_until_it_answers(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = HeldModel(merges_calls=False)
    replica = await start(model)
    [asked] = await in_flight(replica, ["a"])
    while not model.batches:
        await asyncio.sleep(0.001)
    await replica.check_health()
    monkeypatch.setattr(revision, "LONGEST_BATCH_S", 0.0)
    with pytest.raises(RuntimeError, match="has been computing one batch for 0 s"):
        await replica.check_health()
    model.allowed.set()
    await asked
    await replica.check_health()
