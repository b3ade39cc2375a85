"""What holds in every history of a FineTuneJob, wherever the operator is cut off.

The machine plays the user, the nodes, Kubernetes' controllers, Kueue, and an operator that is killed after any of its
actions. After every action of every plan the invariants are looked at; at the end what was asked for must be there.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from luthier_api.documents import ProgressDocument
from luthier_api.exitcodes import ExitCode

pytestmark = pytest.mark.unit

DEADLINE_S = 600
stages = st.sampled_from(["prepare", "train", "train"])
cuts = st.one_of(st.none(), st.integers(0, 6))


def runs(world: Any, stage: str) -> bool:
    """Whether a stage has, or may at once get, a pod."""
    job = world.job(stage)
    return job is not None and not job["spec"].get("suspend") and "deletionTimestamp" not in job["metadata"]


class Histories(RuleBasedStateMachine):
    """Everything that may happen to one FineTuneJob."""

    make_world: Any = None

    @initialize()
    def begin(self) -> None:
        self.world = self.make_world()
        self.world.edit(progressDeadlineSeconds=DEADLINE_S, backoffLimit=2)
        self.stranger = {
            "metadata": {
                "name": "stranger-train",
                "namespace": "team",
                "uid": "uid-stranger",
                "labels": {"app.kubernetes.io/component": "stranger", "luthier.dev/run": "stranger"},
                "ownerReferences": [{"uid": "somebody else", "controller": True}],
            },
            "spec": {"template": {"spec": {"containers": [{}]}}},
        }
        self.world.jobs["stranger-train"] = self.stranger

    # The operator

    @rule(cut=cuts)
    def operator(self, cut: int | None) -> None:
        """One reconcile, which may be killed in the middle."""
        world, before = self.world, self.world.status
        plan = world.plan()
        for delete in plan.deletes:
            job = world.jobs[delete.name]
            assert job["metadata"]["uid"] == delete.uid
            assert job["metadata"]["ownerReferences"][0]["uid"] == world.uid, "deleted what is not its own"
        for patch in plan.patches:
            job = world.jobs[patch.name]
            assert job["metadata"]["ownerReferences"][0]["uid"] == world.uid, "changed what is not its own"
            queued = "kueue.x-k8s.io/queue-name" in job["metadata"]["labels"]
            assert not (queued and "suspend" in patch.merge["spec"]), "suspend of a queued Job is Kueue's"
        for apply in plan.applies:
            self.asked_for(apply.manifest)
        world.step(cut)
        self.never_goes_back(before, world.status)

    def asked_for(self, manifest: dict[str, Any]) -> None:
        if manifest["kind"] == "Service":
            return
        limits = manifest["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
        if "nvidia.com/gpu" not in limits:
            return
        assert manifest["metadata"]["name"].endswith("-train")
        key = manifest["metadata"]["annotations"]["luthier.dev/run-key"]
        over = self.world.status.get("currentRun", {}).get("givenUp")
        assert key not in self.world.registry or over, "asked for a GPU although the version is published"

    @staticmethod
    def never_goes_back(before: dict[str, Any], after: dict[str, Any]) -> None:
        assert after.get("observedGeneration", 0) >= before.get("observedGeneration", 0)
        same = before.get("currentRun", {}).get("name") == after.get("currentRun", {}).get("name")
        for count in ("failed", "preempted"):
            was, now = (status.get("attempts", {}).get(count, 0) for status in (before, after))
            assert now >= was or not same, f"{count} attempts were forgotten"
        was, now = (status.get("usage", {}).get("gpuSeconds", 0) for status in (before, after))
        assert now >= was

    @rule(cuts=st.lists(cuts, min_size=1, max_size=3))
    def operator_catches_up(self, cuts: list[int | None]) -> None:
        """Some reconciles, killed or not, and then whole ones."""
        for cut in [*cuts, None, None]:
            self.operator(cut)
            self.no_two_jobs_train_one_run_key_or_hold_two_gpus()

    @rule(cut=cuts)
    def it_goes_on(self, cut: int | None) -> None:
        """What runs comes to a good end, and the operator sees to the next thing."""
        self.let_in(True)
        self.prepare_ends()
        self.operator_catches_up([cut])

    @rule()
    def its_pods_train(self) -> None:
        self.let_in(True)
        self.pods_start()
        self.tells_a_step(1)
        self.operator(None)

    @rule()
    def it_is_stuck(self) -> None:
        self.its_pods_train()
        self.time_passes(DEADLINE_S + 10)

    # The user

    @rule(rate=st.sampled_from(["0.00002", "0.001", "0.003"]))
    def edit(self, rate: str) -> None:
        self.world.edit(hyperparameters={"learningRate": rate})

    @rule(on=st.booleans())
    def suspend(self, on: bool) -> None:
        self.world.edit(suspend=on)

    @rule(policy=st.sampled_from(["Forbid", "Replace"]))
    def concurrency(self, policy: str) -> None:
        self.world.edit(concurrencyPolicy=policy)

    @rule(nodes=st.sampled_from([1, 1, 2]))
    def nodes(self, nodes: int) -> None:
        self.world.edit(numNodes=nodes)

    @rule(queue=st.sampled_from([None, "gpus"]))
    def queue(self, queue: str | None) -> None:
        self.world.edit(queueName=queue)

    @rule(text=st.sampled_from(["", "again"]))
    def retry(self, text: str) -> None:
        self.world.retry = text

    @rule()
    def delete_and_create_again(self) -> None:
        """kubectl replace --force: the garbage collector is still at the old one's Jobs."""
        world = self.world
        for job in world.jobs.values():
            if job["metadata"]["ownerReferences"][0]["uid"] == world.uid:
                job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        world.made += 1
        world.uid, world.status, world.generation = f"uid-of-{world.made}", {}, 1
        world.services.clear()

    # The pods

    @rule()
    def prepare_ends(self) -> None:
        if runs(self.world, "prepare"):
            self.world.prepare_ends()

    @rule()
    def train_ends(self) -> None:
        if runs(self.world, "train"):
            self.world.train_ends()
            self.world.progress = None

    @rule()
    def pods_start(self) -> None:
        for stage in ("prepare", "train"):
            if runs(self.world, stage):
                self.world.running(self.world.job(stage))

    @rule(
        stage=st.sampled_from(["prepare", "train"]),
        code=st.sampled_from([ExitCode.INVALID_DATA, ExitCode.OUT_OF_MEMORY]),
    )
    def fails_for_good(self, stage: str, code: ExitCode) -> None:
        if runs(self.world, stage):
            self.world.fails(stage, code)

    @rule()
    def another_run_trains_the_same(self) -> None:
        if runs(self.world, "train"):
            self.world.fails("train", ExitCode.PREPARE_AGAIN)

    @rule(stage=stages)
    def crashes(self, stage: str) -> None:
        if runs(self.world, stage):
            job = self.world.job(stage)
            limit = job["spec"]["backoffLimit"]
            last = job.get("status", {}).get("failed", 0) >= limit
            self.world.end(job, ExitCode.CRASHED, final=last)

    @rule(
        stage=st.sampled_from(["prepare", "train"]),
        reason=st.sampled_from(["PreemptionByScheduler", "DeletionByPodGC"]),
    )
    def is_disrupted(self, stage: str, reason: str) -> None:
        if runs(self.world, stage):
            self.world.disrupt(stage, reason)

    @rule(step=st.integers(0, 3))
    def tells_a_step(self, step: int) -> None:
        if runs(self.world, "train"):
            self.world.progress = ProgressDocument(
                stage="Training", step=step, total_steps=200, updated_at="2026-01-01T00:00:00Z"
            )

    @rule(seconds=st.sampled_from([5, 60, DEADLINE_S + 10]))
    def time_passes(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    # Kubernetes

    @rule()
    def garbage_is_collected(self) -> None:
        self.world.collect()

    @rule()
    def pods_are_lost(self) -> None:
        self.world.pods.clear()

    @precondition(lambda self: len(self.world.jobs) > 1)
    @rule(data=st.data())
    def somebody_deletes_a_job(self, data: st.DataObject) -> None:
        own = sorted(set(self.world.jobs) - {"stranger-train"})
        self.world.remove(data.draw(st.sampled_from(own)))

    @rule()
    def finished_jobs_expire(self) -> None:
        for name, job in list(self.world.jobs.items()):
            if job.get("status", {}).get("conditions") and "ttlSecondsAfterFinished" in job["spec"]:
                self.world.remove(name)

    @rule(admit=st.booleans())
    def kueue(self, admit: bool) -> None:
        self.let_in(admit)

    def let_in(self, admit: bool) -> None:
        for job in self.world.jobs.values():
            queued = "kueue.x-k8s.io/queue-name" in job["metadata"].get("labels", {})
            if queued and not job.get("status", {}).get("conditions"):
                job["spec"]["suspend"] = not admit
                for pod in self.world.pods_of(job) if not admit else []:
                    if pod["status"]["phase"] == "Running":
                        self.world.end_pod(pod, ExitCode.PREEMPTED)

    # What always holds

    @invariant()
    def no_two_jobs_train_one_run_key_or_hold_two_gpus(self) -> None:
        trains = [
            job["metadata"]
            for name, job in self.world.jobs.items()
            if name.endswith("-train") and not job.get("status", {}).get("conditions") and job is not self.stranger
        ]
        keys = Counter(metadata["annotations"]["luthier.dev/run-key"] for metadata in trains)
        owners = Counter(metadata["ownerReferences"][0]["uid"] for metadata in trains)
        assert not trains or max(*keys.values(), *owners.values()) == 1, "two Jobs hold, or may get, a GPU"

    @invariant()
    def the_conditions_tell_one_truth(self) -> None:
        status = {c["type"]: c["status"] for c in self.world.status.get("conditions", [])}
        if status:
            told = [status["Ready"] == "True", "Reconciling" in status, "Stalled" in status]
            assert sum(told) <= 1, status
            assert any(told) or self.world.ready["reason"] == "Suspended", status

    @invariant()
    def the_stranger_is_left_alone(self) -> None:
        assert (
            self.world.jobs["stranger-train"] is self.stranger and "deletionTimestamp" not in self.stranger["metadata"]
        )

    def teardown(self) -> None:
        """Left in peace, it ends with the version that the spec asks for, and nothing is left to do."""
        world = getattr(self, "world", None)
        if world is None:
            return
        world.progress = None
        world.edit(suspend=False)
        world.retry = "at last"
        for _ in range(12):
            world.settle()
            if world.ready["status"] == "True":
                break
            self.let_in(True)
            stage = next((stage for stage in ("train", "prepare") if runs(world, stage)), None)
            assert stage, f"nothing goes on, and the version is not there: {world.ready}"
            (world.train_ends if stage == "train" else world.prepare_ends)()
        assert world.status["artifact"]["version"] == world.registry[world.key()]
        assert world.plan().empty
        assert len(world.trained) == len(set(world.trained)), "a run key was trained twice"


def test_any_history_keeps_the_invariants_and_ends_with_the_version_of_the_spec(make_world: Any) -> None:
    class Played(Histories):
        pass

    Played.make_world = make_world
    some = settings(max_examples=60, stateful_step_count=35, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Played, settings=some)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 4), min_size=1, max_size=12), nodes=st.sampled_from([1, 2]), evicted=st.booleans())
def test_cut_off_anywhere_the_final_state_is_that_of_an_undisturbed_life(
    make_world: Any, cuts: list[int], nodes: int, evicted: bool
) -> None:
    def live(cut_off: list[int]) -> tuple[Any, ...]:
        world = make_world()
        world.edit(numNodes=nodes)
        acts = [world.prepare_ends, *([lambda: world.disrupt("train")] if evicted else []), world.train_ends]
        for act in acts:
            for cut in cut_off:
                world.step(cut)
            world.settle()
            act()
        for cut in cut_off:
            world.step(cut)
        world.settle()
        status = world.status
        conditions = [(c["type"], c["status"], c["reason"], c["message"]) for c in status["conditions"]]
        return (
            sorted(world.jobs),
            status["phase"],
            status["artifact"],
            conditions,
            world.trained,
            status.get("attempts"),
        )

    assert live(cuts) == live([])
