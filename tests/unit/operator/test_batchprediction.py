"""The life of a BatchPrediction in a world of dicts: its Job, its versions, its edits, and plans that are cut off."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from luthier_api.batchprediction import BatchPredictionSpec, BatchPredictionStatus
from luthier_api.documents import BulkDocument, Failure, Predicted, ProgressDocument, Result
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason
from luthier_operator.manifests.batch_job import grants
from luthier_operator.model import names
from luthier_operator.model.actions import Plan
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.ownership import join
from luthier_operator.model.parse import job_view, pod_view
from luthier_operator.model.resources import BatchPredictionResource
from luthier_operator.model.views import FineTuneJobView, Meta, Refusal
from luthier_operator.plan.batchprediction.policies import plan_batchprediction, plan_unreadable
from luthier_operator.plan.batchprediction.situation import ObservedBatch
from support.operator.least import BATCHPREDICTION
from support.operator.serving import job as finetunejob
from support.operator.serving import version

pytestmark = pytest.mark.unit

Raw = dict[str, Any]
DEFAULTS = Defaults(trainer_image="trainer:1", server_image="server:1")
OUTPUT = "s3://predictions/reviews/predictions-0123456789abcdef/"


def predicted(**changes: Any) -> str:
    fields = {"output": OUTPUT, "rows": 100, "shards": 4, "complete": True}
    return Result(predicted=Predicted(**{**fields, **changes})).to_termination_message()


def failure(reason: Reason, message: str) -> str:
    return Result(failure=Failure(reason=reason, message=message)).to_termination_message()


@dataclass
class World:
    """One BatchPrediction, its Jobs and pods; what plans apply, and what a node would do with it."""

    spec: Raw = field(default_factory=lambda: copy.deepcopy(BATCHPREDICTION["spec"]))
    retry: str = ""
    uid: str = "uid-1"
    generation: int = 1
    status: BatchPredictionStatus = field(default_factory=BatchPredictionStatus)
    jobs: dict[str, Raw] = field(default_factory=dict)
    pods: list[Raw] = field(default_factory=list)
    finetunejob: FineTuneJobView | None = field(default_factory=lambda: finetunejob(version("v-a")))
    progress: ProgressDocument | None = None
    pod_events: dict[str, str] = field(default_factory=dict)
    refused: Refusal | None = None
    deleting: bool = False
    defaults: Defaults = DEFAULTS
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    made: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def plan(self) -> Plan:
        meta = Meta("BatchPrediction", "team", "reviews", self.uid, self.generation, self.deleting, self.retry)
        spec = BatchPredictionSpec.model_validate(self.spec)
        observed = ObservedBatch(
            join(self.uid, map(job_view, self.jobs.values()), map(pod_view, self.pods)),
            self.finetunejob,
            self.progress,
            self.pod_events,
            refused=self.refused,
        )
        return plan_batchprediction(BatchPredictionResource(meta, spec, self.status), observed, self.now, self.defaults)

    def step(self, cut: int | None = None) -> Plan:
        self.now += timedelta(seconds=1)
        plan = self.plan()
        actions = [
            *(lambda d=d: self._delete(d.name) for d in plan.deletes),
            *(lambda p=p: self.jobs[p.name]["spec"].update(p.merge["spec"]) for p in plan.patches),
            *(lambda a=a: self._create(a.manifest) for a in plan.applies),
        ]
        if plan.status is not None:
            actions.append(lambda: self._write(plan.status))
        actions += [lambda e=e: self.events.append(str(e.reason)) for e in plan.events]
        for action in actions[:cut]:
            action()
        return plan

    def settle(self) -> None:
        for _ in range(20):
            if self.step().empty:
                return
        raise AssertionError("it does not converge")

    def edit(self, **changes: Any) -> None:
        self.spec, self.generation = {**self.spec, **changes}, self.generation + 1

    def _write(self, status: Any) -> None:
        self.status = BatchPredictionStatus.model_validate(status)

    def _create(self, manifest: Raw) -> None:
        name = manifest["metadata"]["name"]
        if name not in self.jobs:
            made = copy.deepcopy(manifest)
            self.made.append(name)
            created = f"{self.now:%Y-%m-%dT%H:%M:%SZ}"
            made["metadata"] |= {"uid": f"job-{len(self.made)}", "creationTimestamp": created}
            made["status"] = {"startTime": created}
            self.jobs[name] = made

    def _delete(self, name: str) -> None:
        uid = self.jobs.pop(name)["metadata"]["uid"]
        self.pods = [pod for pod in self.pods if pod["metadata"]["ownerReferences"][0]["uid"] != uid]

    @property
    def job(self) -> Raw:
        (only,) = self.jobs.values()
        return only

    @property
    def document(self) -> BulkDocument:
        return BulkDocument.from_json(self.job["spec"]["template"]["metadata"]["annotations"][names.RUN_DOCUMENT])

    def pod(self, phase: str, state: Raw | None = None, index: int = 0, **status: Any) -> Raw:
        job = self.job
        made = {
            "metadata": {
                "name": f"{job['metadata']['name']}-{index}-{len(self.pods)}",
                "uid": f"pod-{len(self.pods)}",
                "labels": job["spec"]["template"]["metadata"]["labels"],
                "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
                "creationTimestamp": f"{self.now:%Y-%m-%dT%H:%M:%SZ}",
                "ownerReferences": [{"uid": job["metadata"]["uid"], "controller": True}],
            },
            "spec": {"nodeName": "n", **job["spec"]["template"]["spec"]},
            "status": {"phase": phase, "containerStatuses": [{"name": "main", "state": state or {}}], **status},
        }
        self.pods.append(made)
        return made

    def ends(self, *messages: str) -> None:
        """Let each worker end well, with its last words, and so the Job."""
        for index, message in enumerate(messages):
            self.pod("Succeeded", {"terminated": {"exitCode": 0, "message": message}}, index)
        self.job["status"]["conditions"] = [{"type": "Complete", "status": "True"}]

    def fails(self, code: int, message: str = "", reason: str = "Error", *, final: str = "PodFailurePolicy") -> None:
        ended = {"exitCode": code, "message": message, "reason": reason}
        times = {"startedAt": f"{self.now:%Y-%m-%dT%H:%M:%SZ}", "finishedAt": f"{self.now:%Y-%m-%dT%H:%M:%SZ}"}
        self.pod("Failed", {"terminated": {**ended, **times}})
        self.job["status"]["failed"] = self.job["status"].get("failed", 0) + 1
        if final:
            self.job["status"]["conditions"] = [{"type": "Failed", "status": "True", "reason": final}]

    def condition(self, type_: str) -> tuple[str, str, str]:
        found = next(each for each in self.status.conditions if each.type == type_)
        return found.status, found.reason, found.message

    @property
    def types(self) -> set[str]:
        return {each.type for each in self.status.conditions if each.status == "True"}


def test_a_run_is_one_indexed_job_of_the_servers_image_without_kubernetes_credentials() -> None:
    world = World()
    world.edit(parallelism=3, runtime={"nodeSelector": {"disk": "fast"}}, backoffLimit=5, activeDeadlineSeconds=60)
    world.settle()
    spec = world.job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (5, 60)
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert (container["image"], container["command"]) == ("server:1", ["python", "-m", "luthier_serving.bulk"])
    assert pod["automountServiceAccountToken"] is False and pod["nodeSelector"] == {"disk": "fast"}
    assert pod["restartPolicy"] == "Never" and container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert world.condition("Ready") == ("False", "Predicting", "The workers are starting.")
    assert world.plan().empty


def test_the_workers_are_told_the_version_and_how_each_place_is_reached() -> None:
    world = World()
    world.edit(output={"uri": "s3://predictions/reviews/", "secretRef": {"name": "out"}, "endpoint": "http://s3"})
    world.settle()
    told = world.document
    assert (told.model.version, told.model.access.credentials) == ("v-a", "model")
    assert told.model.model_uri == "s3://models/sentiment/versions/v-a"
    assert told.input_access == told.output_access and told.input_access.credentials == "output"
    volumes = {each["name"] for each in world.job["spec"]["template"]["spec"]["volumes"]}
    assert {"credentials-output", "credentials-model"} <= volumes
    assert (world.status.version, world.status.digest) == ("v-a", told.model.digest)


def test_what_names_no_access_of_its_own_is_reached_like_the_output() -> None:
    spec = {**BATCHPREDICTION["spec"], "output": {"uri": "s3://out/", "endpoint": "http://here"}}
    spec["model"] = {"uri": "s3://models/m/versions/v1", "digest": "sha256:" + "0" * 64}
    given = grants(BatchPredictionSpec.model_validate(spec), None)
    assert {grant.access.endpoint for grant in given.values()} == {"http://here"}
    own = {**spec, "input": {"uri": "s3://data/a.csv", "endpoint": "http://there"}}
    assert grants(BatchPredictionSpec.model_validate(own), None)["input"].access.endpoint == "http://there"


def test_a_killed_worker_is_begun_again_and_bad_input_is_not() -> None:
    world = World()
    world.settle()
    rules = world.job["spec"]["podFailurePolicy"]["rules"]
    final = next(rule["onExitCodes"]["values"] for rule in rules if rule["action"] == "FailJob")
    assert ExitCode.INVALID_DATA in final and ExitCode.KILLED not in final


def test_the_predictions_of_all_rows_are_the_end_and_nothing_is_written_any_more() -> None:
    world = World()
    world.edit(parallelism=2)
    world.settle()
    world.ends(predicted(complete=False), predicted(errors=3))
    world.settle()
    assert world.condition("Ready") == (
        "True",
        "Predicted",
        f"{OUTPUT} holds the predictions of all 100 rows, 3 of them with an error in place of one.",
    )
    status = world.status
    assert (status.phase, status.output, status.rows, status.errors, status.percent) == (
        "Succeeded",
        OUTPUT,
        100,
        3,
        100,
    )
    assert status.shards and (status.shards.done, status.shards.total) == (4, 4)
    assert world.job["spec"]["ttlSecondsAfterFinished"] == 86400, "only once the outcome is in the status"
    assert world.events == ["Predicting", "Predicted"]
    world.jobs.clear()
    world.pods.clear()
    assert world.plan().empty, "an expired Job is not made again"


def test_no_job_expires_before_its_outcome_is_in_the_status() -> None:
    world = World()
    world.settle()
    world.ends(predicted())
    assert not world.step().patches
    assert world.step().patches


def test_what_an_earlier_run_has_predicted_is_found() -> None:
    world = World()
    world.settle()
    world.ends(predicted(reused=True))
    world.settle()
    status, reason, message = world.condition("Ready")
    assert (status, reason, world.status.reused) == ("True", "Reused", True) and "nothing was computed" in message


def test_progress_is_shown_when_a_shard_is_finished() -> None:
    world = World()
    world.settle()
    world.pod("Running", {"running": {"startedAt": "2026-01-01T00:00:00Z"}})
    said = ProgressDocument(
        stage="Predicting",
        step=1,
        total_steps=4,
        rows=100,
        examples_per_second=51.236,
        eta_seconds=61.0,
        updated_at="2026-01-01T00:00:00Z",
    )
    world.progress = said
    world.settle()
    status = world.status
    assert (status.rows, status.percent, status.texts_per_second, status.eta) == (100, 25, "51.2", "1m1s")
    assert world.condition("Ready")[2] == "1 of 4 shards are stored, about 1m1s left."
    world.progress = said.model_copy(update={"eta_seconds": 55.0})
    assert world.plan().empty, "time left alone is no news"
    world.progress = None
    assert world.plan().empty, "a pod that does not answer takes nothing back"


@pytest.mark.parametrize(
    ("code", "message", "reason", "sentence"),
    [
        (
            ExitCode.INVALID_DATA,
            failure(Reason.INVALID_DATA, "a.csv has no column 'text'."),
            "InvalidData",
            "no column",
        ),
        (
            ExitCode.INTEGRITY_ERROR,
            failure(Reason.INTEGRITY_ERROR, "a.csv changed."),
            "IntegrityError",
            "a.csv changed.",
        ),
        (ExitCode.INVALID_DATA, "not json", "InvalidData", "exit code 65"),
    ],
)
def test_a_failure_that_would_only_come_again_ends_the_run_with_its_sentence(
    code: int, message: str, reason: str, sentence: str
) -> None:
    world = World()
    world.settle()
    world.fails(code, message)
    world.settle()
    assert world.types == {"Stalled"} and world.status.phase == "Failed"
    assert world.condition("Ready")[1] == reason and sentence in world.condition("Ready")[2]
    assert "luthier.dev/retry" in world.condition("Ready")[2]
    world.jobs.clear()
    world.pods.clear()
    assert world.plan().empty, "it is not tried again by itself"
    world.retry = "1"
    assert world.plan().applies, "the annotation tries it again"


def test_a_failure_that_is_tried_again_is_said_until_a_worker_runs() -> None:
    world = World()
    world.settle()
    world.fails(ExitCode.STORAGE_UNAVAILABLE, failure(Reason.STORAGE_UNAVAILABLE, "S3 is away."), final="")
    world.settle()
    assert world.condition("Ready") == ("False", "Retrying", "Trying again after: S3 is away.")
    assert (world.status.failed_attempts, world.status.last_failure and world.status.last_failure.exit_code) == (1, 80)
    world.now += timedelta(seconds=5)
    world.pod("Running", {"running": {"startedAt": "2026-01-01T00:00:05Z"}})
    world.settle()
    assert world.condition("Ready")[1] == "Predicting"


def test_memory_and_disruptions_are_told_in_the_words_of_a_batch() -> None:
    world = World()
    world.settle()
    world.fails(ExitCode.KILLED, reason="OOMKilled", final="BackoffLimitExceeded")
    world.settle()
    assert "lower shardRows" in world.condition("Ready")[2] and "batchSize" not in world.condition("Ready")[2]
    world = World()
    world.settle()
    world.fails(ExitCode.PREEMPTED, final="")
    world.pods[-1]["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "message": "drained"}]
    world.settle()
    assert "The shards that are missing are computed by another pod" in world.condition("Ready")[2]


def test_a_deadline_says_what_stays() -> None:
    world = World()
    world.settle()
    world.job["status"]["conditions"] = [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]
    world.settle()
    assert (
        world.condition("Ready")[1] == "DeadlineExceeded"
        and "parts that are stored stay" in world.condition("Ready")[2]
    )


def test_it_waits_for_a_version_and_then_keeps_the_one_that_it_began_with() -> None:
    world = World()
    world.finetunejob = None
    world.settle()
    assert world.condition("Ready")[:2] == ("False", "WaitingForModel") and not world.jobs
    world.finetunejob = finetunejob(version("v-a"))
    world.settle()
    world.finetunejob = finetunejob(version("v-b"), version("v-a"))
    assert world.plan().empty
    world.jobs.clear()
    world.settle()
    assert world.document.model.version == world.status.version == "v-a", "also in a Job that is made again"
    world.edit(shardRows=5)
    world.settle()
    assert world.document.model.version == world.status.version == "v-b", "an edit begins anew"


def test_a_version_that_is_not_there_stalls() -> None:
    world = World()
    world.edit(model={"fineTuneJobRef": {"name": "sentiment", "version": "v-x"}})
    world.settle()
    assert world.types == {"Stalled"} and world.condition("Ready")[1] == "ModelNotFound"


def test_an_edit_stops_the_run_and_begins_another_under_its_own_name() -> None:
    world = World()
    world.settle()
    first = world.job["metadata"]["name"]
    world.pod("Running")
    world.edit(input={"uri": "s3://data/other.csv"})
    world.settle()
    assert first not in world.jobs and world.document.input_uri == "s3://data/other.csv"
    assert world.status.run and world.status.run.name in world.job["metadata"]["name"]
    assert world.status.rows is None


def test_what_changes_no_pod_starts_no_run() -> None:
    world = World()
    world.settle()
    world.edit(ttlSecondsAfterFinished=60)
    world.settle()
    assert len(world.made) == 1
    world.edit(runtime={"engine": "auto"}, parallelism=1, shardRows=10_000)
    world.settle()
    assert len(world.made) == 1, "a default that is written out says nothing new"


def test_suspended_nothing_runs_and_resumed_the_same_run_goes_on() -> None:
    world = World()
    world.settle()
    begun = world.document.begun
    world.edit(suspend=True)
    world.settle()
    assert not world.jobs and world.condition("Ready")[1] == "Suspended" and not world.types
    world.edit(suspend=False)
    world.now += timedelta(hours=1)
    world.settle()
    assert world.document.begun == begun, "so that an input which changed meanwhile is noticed"
    assert len(set(world.made)) == 1


def test_a_result_that_is_lost_is_looked_up_by_another_job() -> None:
    world = World()
    world.settle()
    world.ends(predicted())
    world.pods.clear()
    world.step()
    assert not world.jobs
    world.settle()
    assert len(world.made) == 2
    world.ends(predicted(reused=True))
    world.settle()
    assert world.condition("Ready")[:2] == ("True", "Reused")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("", "Crashed"),
        (failure(Reason.CRASHED, "no"), "Crashed"),
        (predicted(output="s3://somebody/else/"), "IntegrityError"),
        (predicted(output="s3://predictions/reviews/predictions-\x1b[2J/"), "IntegrityError"),
    ],
)
def test_a_result_that_cannot_be_true_is_not_accepted(message: str, reason: str) -> None:
    world = World()
    world.settle()
    world.ends(message)
    world.settle()
    assert world.types == {"Stalled"} and world.condition("Ready")[1] == reason and world.status.output is None


def test_an_image_that_is_not_allowed_does_not_run() -> None:
    world = World(defaults=Defaults(trainer_image="t", server_image="server:1", allowed_images=("registry/ours/",)))
    world.settle()
    assert world.jobs
    world.edit(runtime={"image": "evil:1"})
    world.settle()
    assert not world.jobs and world.condition("Ready")[1] == "ImageNotAllowed"


def test_a_job_of_an_earlier_resource_of_this_name_is_waited_for() -> None:
    world = World()
    world.settle()
    world.uid, world.status = "uid-2", BatchPredictionStatus()
    world.settle()
    assert world.condition("Ready")[1] == "WaitingForRun" and len(world.made) == 1
    world.jobs.clear()
    world.settle()
    assert world.condition("Ready")[1] == "Predicting"


def test_a_worker_that_does_not_start_says_why() -> None:
    world = World()
    world.settle()
    waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}}
    world.pod("Pending", waiting)
    world.settle()
    assert world.condition("Ready")[1] == "MissingSecret"
    world.pods.clear()
    world.pod_events = {"job-1": "Error creating: exceeded quota: tiny, must specify cpu"}
    world.settle()
    assert world.condition("Ready")[1] == "QuotaExceeded"


def test_what_the_cluster_refuses_is_said_and_sent_again() -> None:
    world = World(refused=Refusal("spec.template: no"))
    plan = world.step()
    assert world.condition("Ready")[1] == "InvalidSpec" and plan.requeue_after_s == DEFAULTS.refused_retry_s


def test_in_a_queue_the_job_is_made_suspended_and_what_kueue_says_is_shown() -> None:
    world = World()
    world.edit(queueName="team")
    world.settle()
    assert world.job["spec"]["suspend"] is True and world.job["metadata"]["labels"][names.QUEUE] == "team"
    assert world.condition("Ready")[1] == "Queued" and world.condition("Admitted")[0] == "False"


def test_a_proxy_that_outlives_the_worker_is_ended_once_the_outcome_is_written() -> None:
    world = World()
    world.settle()
    pod = world.pod(
        "Running", {"terminated": {"exitCode": 0, "message": predicted(), "finishedAt": "2026-01-01T00:00:03Z"}}
    )
    pod["status"]["containerStatuses"].append({"name": "proxy", "state": {"running": {}}})
    world.step()
    assert world.condition("Ready")[0] == "True"
    plan = world.step()
    assert not plan.deletes and plan.requeue_after_s, "it is left a moment to end by itself"
    world.now += timedelta(seconds=20)
    world.settle()
    assert not world.jobs and world.condition("Ready")[0] == "True"


def test_nothing_is_done_for_a_resource_that_goes_or_cannot_be_read_but_to_say_so() -> None:
    world = World(deleting=True)
    assert world.plan().empty
    meta = Meta("BatchPrediction", "team", "reviews", "uid-1", 1)
    plan = plan_unreadable(meta, BatchPredictionStatus(), "spec.input: no.", world.now)
    assert plan.status and plan.status["phase"] == "Failed"


@pytest.mark.parametrize("cut", range(5))
def test_a_plan_that_is_cut_off_anywhere_is_made_again(cut: int) -> None:
    world = World()
    whole = World()
    for each in (world, whole):
        each.edit(parallelism=2)
    world.step(cut)
    world.settle()
    whole.settle()
    assert len(world.made) == 1
    assert world.status.version == whole.status.version and world.status.run and world.status.run.state == "Running"
    world.ends(predicted(complete=False), predicted())
    world.step(cut)
    world.settle()
    assert world.condition("Ready")[0] == "True" and world.job["spec"]["ttlSecondsAfterFinished"] == 86400


def test_the_name_of_a_job_leaves_room_for_the_number_of_its_last_worker() -> None:
    run = names.batch_run_name("a.long-name." + "x" * 40, "0" * 64)
    assert len(f"{names.job_name(run, 'predict')}-999") <= names.MAX_NAME and "." not in run


def test_a_forged_job_is_not_taken_for_the_runs() -> None:
    world = World()
    world.settle()
    forged = copy.deepcopy(world.job)
    forged["metadata"] |= {"name": "other", "uid": "job-x"}
    assert job_view(forged).owner_uid == "" and job_view(world.job).owner_uid == "uid-1"
