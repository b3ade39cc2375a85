"""What the Jobs look like that are given to Kubernetes."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_api.documents import GRACE_VARIABLE, Resolved, RunDocument
from luthier_api.exitcodes import OUTCOMES, Retry
from luthier_operator.manifests import pods, rendezvous
from luthier_operator.manifests.jobs import job
from luthier_operator.model import names
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.views import Meta

pytestmark = pytest.mark.unit

META = Meta("FineTuneJob", "team", "reviews", "uid-1", 3)
DEFAULTS = Defaults(trainer_image="trainer:1", server_image="server:1")
HASH = "0" * 64
RESOLVED = Resolved(run_key=HASH, data_key=HASH, model_digest=f"sha256:{HASH}", dataset_digest=f"sha256:{HASH}")


def build(spec: Any, stage: str = "train", defaults: Defaults = DEFAULTS) -> dict[str, Any]:
    resolved = RESOLVED if stage == "train" else None
    return job(
        META,
        spec,
        stage=stage,  # type: ignore[arg-type]
        run="reviews-abc",
        spec_hash=HASH,
        resolved=resolved,
        defaults=defaults,
    )


def pod(spec: Any, stage: str = "train") -> dict[str, Any]:
    return dict(build(spec, stage)["spec"]["template"]["spec"])


def container(spec: Any, stage: str = "train") -> dict[str, Any]:
    return dict(pod(spec, stage)["containers"][0])


@pytest.mark.parametrize("stage", ["prepare", "train"])
def test_every_pod_keeps_to_the_restricted_standard_and_has_no_kubernetes_credentials(
    make_spec: Any, stage: str
) -> None:
    made = pod(make_spec(), stage)
    assert made["automountServiceAccountToken"] is False
    assert made["securityContext"]["runAsNonRoot"] is True
    assert made["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (only,) = made["containers"]
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    kinds = {next(iter(set(v) - {"name"})) for v in made["volumes"]}
    assert kinds <= {"downwardAPI", "emptyDir", "configMap", "projected"}


def test_the_training_pod_has_time_for_its_last_checkpoint_and_knows_how_much(make_spec: Any) -> None:
    def times(stage: str, defaults: Defaults) -> tuple[int, list[str]]:
        pod = build(make_spec(), stage, defaults)["spec"]["template"]["spec"]
        told = [each["value"] for each in pod["containers"][0]["env"] if each["name"] == GRACE_VARIABLE]
        return pod["terminationGracePeriodSeconds"], told

    patient = replace(DEFAULTS, train_grace_s=300)
    assert times("train", DEFAULTS) == (120, ["120"])
    assert times("train", patient) == (300, ["300"])
    assert times("prepare", patient) == (10, [])


def test_only_the_training_pod_asks_for_a_gpu(make_spec: Any) -> None:
    sneaky = {"limits": {"nvidia.com/gpu": "8"}, "requests": {"nvidia.com/gpu": "8"}}
    spec = make_spec(prepareResources=sneaky, resources=sneaky)
    assert "nvidia.com/gpu" not in str(container(spec, "prepare")["resources"])
    assert container(spec)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in str(container(make_spec(gpusPerNode=0))["resources"])


def test_the_run_document_reaches_the_pod_as_a_file(make_spec: Any) -> None:
    spec = make_spec(labels=["no", "yes"])
    made = build(spec)
    text = made["spec"]["template"]["metadata"]["annotations"][names.RUN_DOCUMENT]
    document = RunDocument.from_json(text)
    assert document.spec.labels == ["no", "yes"]
    assert document.resolved == RESOLVED and document.image == "trainer:1"
    assert document.origin and (document.origin.name, document.origin.run) == ("reviews", "reviews-abc")
    (volume,) = [v for v in made["spec"]["template"]["spec"]["volumes"] if "downwardAPI" in v]
    assert names.RUN_DOCUMENT in volume["downwardAPI"]["items"][0]["fieldRef"]["fieldPath"]


SECRET = {"secretRef": {"name": "other"}}
S3_KEYS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, {"output": ("s3", S3_KEYS)}, id="the output's for all"),
        pytest.param(
            {"model": {"uri": "hf://bert", **SECRET}},
            {"output": ("s3", S3_KEYS), "model": ("other", {"HF_TOKEN"})},
            id="a hub needs only a token",
        ),
        pytest.param(
            {"dataset": {"train": {"uri": "s3://data/a.csv"}, **SECRET}},
            {
                "output": ("s3", S3_KEYS),
                "dataset": ("other", S3_KEYS),
            },
            id="data with a Secret of its own",
        ),
        pytest.param({"output": {"name": "m", "uri": "s3://models/"}}, {}, id="the pod's own identity"),
        pytest.param(
            {"dataset": {"train": {"uri": "hf://datasets/owner/name"}, **SECRET}},
            {"output": ("s3", S3_KEYS), "dataset": ("other", {"HF_TOKEN"})},
            id="data of a hub needs only a token",
        ),
        pytest.param(
            {"dataset": {"train": {"uri": "hf://datasets/owner/name"}, "test": {"uri": "s3://data/a.csv"}, **SECRET}},
            {"output": ("s3", S3_KEYS), "dataset": ("other", S3_KEYS)},
            id="data of both needs the keys of storage",
        ),
    ],
)
def test_credentials_are_files_of_the_secrets_that_the_spec_names_and_never_variables(
    make_spec: Any, changes: dict[str, Any], expected: dict[str, tuple[str, set[str]]]
) -> None:
    """Files, and not by subPath, because only those are replaced when the Secret changes."""
    made, found = pod(make_spec(**changes)), {}
    assert not [each for each in made["containers"][0]["env"] if "valueFrom" in each]
    volumes = {volume["name"]: volume["projected"]["sources"] for volume in made["volumes"] if "projected" in volume}
    for mount in made["containers"][0]["volumeMounts"]:
        if mount["name"] not in volumes:
            continue
        required, optional = (source["secret"] for source in volumes.pop(mount["name"]))
        assert mount["readOnly"] and "subPath" not in mount and required["name"] == optional["name"]
        assert (required["optional"], optional["optional"]) == (False, True)
        every = [item for source in (required, optional) for item in source["items"]]
        assert all(item["key"] == item["path"] for item in every) and len(every) == 4
        role = mount["mountPath"].removeprefix("/etc/luthier/credentials/")
        found[role] = (required["name"], {item["key"] for item in required["items"]})
    assert found == expected and not volumes


def test_a_private_authority_is_mounted_where_the_document_says(make_spec: Any) -> None:
    output = {"name": "m", "uri": "s3://models/", "endpoint": "https://s3.local", "caBundle": {"name": "authorities"}}
    spec = make_spec(output=output)
    text = build(spec)["spec"]["template"]["metadata"]["annotations"][names.RUN_DOCUMENT]
    path = RunDocument.from_json(text).model_access.ca_bundle
    mounts = [m["mountPath"] for m in container(spec)["volumeMounts"]]
    assert path == "/etc/luthier/ca/output/ca.crt" and "/etc/luthier/ca/output" in mounts


def test_the_failure_policy_treats_each_exit_code_as_the_table_says(make_spec: Any) -> None:
    """Plays the Job controller's rule: the first rule that matches decides, and what matches none is counted."""
    rules = build(make_spec())["spec"]["podFailurePolicy"]["rules"]
    wanted = {Retry.NEVER: "FailJob", Retry.PREPARE: "FailJob", Retry.FREE: "Ignore", Retry.COUNTED: "Count"}

    def action(code: int, *, disrupted: bool) -> str:
        for rule in rules:
            if "onPodConditions" in rule and disrupted:
                return str(rule["action"])
            if code in rule.get("onExitCodes", {}).get("values", []):
                return str(rule["action"])
        return "Count"

    for code, outcome in OUTCOMES.items():
        assert action(code, disrupted=False) == wanted[outcome.retry]
        assert action(code, disrupted=True) == "Ignore"


def test_named_resources_go_before_defaults_and_a_request_never_exceeds_its_limit(make_spec: Any) -> None:
    made = container(make_spec(gpusPerNode=0, resources={"limits": {"memory": "1Gi", "cpu": "100m"}}))["resources"]
    assert made == {"limits": {"memory": "1Gi", "cpu": "100m"}}
    made = container(make_spec(gpusPerNode=0, resources={"requests": {"memory": "64Gi"}}))["resources"]
    assert made == {"requests": {"cpu": "1", "memory": "64Gi"}}


resource_names = st.from_regex(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?", fullmatch=True)


@given(st.lists(resource_names, min_size=2, max_size=6, unique=True))
def test_names_fit_and_never_collide(found: list[str]) -> None:
    made = [names.job_name(names.run_name(name, HASH), stage) for name in found for stage in ("prepare", "train")]
    assert len(set(made)) == len(made)
    assert all(len(name) <= 63 for name in made)


subdomains = st.from_regex(
    r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?){0,2}", fullmatch=True
)


@given(st.lists(subdomains.filter(lambda name: len(name) <= 52), min_size=1, max_size=6, unique=True))
def test_the_pods_of_several_nodes_have_host_names_that_are_dns_labels_and_never_collide(found: list[str]) -> None:
    made = [f"{names.job_name(names.run_name(name, HASH, 64), 'train')}-63" for name in found]
    services = [names.rendezvous_service(name, uid) for name in found for uid in ("uid-1", "uid-2")]
    for unique in (made, services):
        assert len(set(unique)) == len(unique)
        assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) for name in unique), unique
    assert all(name[0].isalpha() for name in services), "a Service's name begins with a letter"


def test_names_that_differ_only_in_dots_stay_apart() -> None:
    one, other = (names.run_name(name, HASH, 2) for name in ("a.b", "a-b"))
    assert one != other
    assert names.rendezvous_service("a.b", "uid") != names.rendezvous_service("a-b", "uid")


def test_long_names_that_begin_alike_stay_apart() -> None:
    pairs = itertools.combinations([names.run_name("a" * 44 + end, HASH) for end in ("", "b", "c", "bb")], 2)
    assert all(one != other for one, other in pairs)


def test_a_hub_is_never_asked_at_the_outputs_endpoint_or_with_its_keys(make_spec: Any) -> None:
    spec = make_spec(model={"uri": "hf://org/bert"})
    template = build(spec)["spec"]["template"]
    document = RunDocument.from_json(template["metadata"]["annotations"][names.RUN_DOCUMENT])
    assert document.model_access == type(document.model_access)()
    assert document.output_access.credentials == "output"


def test_train_runs_on_the_image_that_prepare_ran_on_although_the_operator_was_upgraded(make_spec: Any) -> None:
    made = job(
        META, make_spec(), stage="train", run="r", spec_hash=HASH,
        resolved=RESOLVED.model_copy(update={"image": "trainer:0"}), defaults=DEFAULTS,
    )  # fmt: skip
    template = made["spec"]["template"]
    assert template["spec"]["containers"][0]["image"] == "trainer:0"
    assert RunDocument.from_json(template["metadata"]["annotations"][names.RUN_DOCUMENT]).image == "trainer:0"


def variables(made: dict[str, Any]) -> dict[str, str]:
    env = made["spec"]["template"]["spec"]["containers"][0]["env"]
    return {each["name"]: each["value"] for each in env if "value" in each}


def test_pods_that_train_together_are_one_indexed_job_and_know_where_they_meet(make_spec: Any) -> None:
    made = build(make_spec(numNodes=3, gpusPerNode=2))
    assert {key: made["spec"][key] for key in ("completionMode", "completions", "parallelism", "backoffLimit")} == {
        "completionMode": "Indexed",
        "completions": 3,
        "parallelism": 3,
        "backoffLimit": 0,
    }
    service = rendezvous.service(META)
    told = variables(made)
    assert told["LUTHIER_RENDEZVOUS"] == f"reviews-abc-train-0.{service['metadata']['name']}:29500"
    assert (told["LUTHIER_NUM_NODES"], told["LUTHIER_PROCESSES_PER_NODE"], told["LUTHIER_MAX_RESTARTS"]) == (
        *("3", "2"),
        "0",
    )
    template = made["spec"]["template"]
    assert template["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert service["metadata"]["ownerReferences"] == made["metadata"]["ownerReferences"]
    (near,) = template["spec"]["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert near["podAffinityTerm"]["topologyKey"] == "topology.kubernetes.io/zone"
    assert near["podAffinityTerm"]["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    prepare = build(make_spec(numNodes=3), "prepare")
    assert "completions" not in prepare["spec"] and "subdomain" not in prepare["spec"]["template"]["spec"]
    assert "LUTHIER_NUM_NODES" not in variables(prepare)


def test_any_pod_that_fails_or_is_disrupted_ends_a_job_of_several_nodes(make_spec: Any) -> None:
    disrupted, failed = build(make_spec(numNodes=2))["spec"]["podFailurePolicy"]["rules"]
    assert disrupted["action"] == failed["action"] == "FailJob"
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert failed["onExitCodes"] == {"containerName": "main", "operator": "NotIn", "values": [0]}


def test_one_process_gets_no_variables_and_several_on_one_node_their_number(make_spec: Any) -> None:
    assert not {name for name in variables(build(make_spec())) if "NODE" in name}
    told = variables(build(make_spec(gpusPerNode=4)))
    assert told["LUTHIER_PROCESSES_PER_NODE"] == "4" and "LUTHIER_RENDEZVOUS" not in told
    assert "subdomain" not in pod(make_spec(gpusPerNode=4))


@pytest.mark.parametrize("stage", ["prepare", "train"])
def test_a_queued_job_is_made_asleep_with_the_name_of_its_queue(make_spec: Any, stage: str) -> None:
    made = build(make_spec(queueName="gpus"), stage)
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus" and made["spec"]["suspend"] is True
    free = build(make_spec(), stage)
    assert "kueue.x-k8s.io/queue-name" not in free["metadata"]["labels"] and "suspend" not in free["spec"]


@pytest.mark.parametrize(("used", "left"), [(0, 3), (2, 1), (3, 0)])
def test_a_job_that_replaces_one_has_only_the_attempts_that_are_left(make_spec: Any, used: int, left: int) -> None:
    made = job(
        META, make_spec(backoffLimit=3), stage="train", run="r", spec_hash=HASH,
        resolved=RESOLVED, defaults=DEFAULTS, failures=used,
    )  # fmt: skip
    assert made["spec"]["backoffLimit"] == left


@pytest.mark.parametrize("length", range(18, 24))
def test_a_name_is_shortened_to_exactly_its_limit_and_no_sooner(length: int) -> None:
    fitted = names.fit("a" * length, 20)
    assert len(fitted) == min(length, 20) and (fitted == "a" * length) is (length <= 20)


def test_only_a_training_is_stopped_at_its_deadline(make_spec: Any) -> None:
    spec = make_spec(activeDeadlineSeconds=3600)
    assert build(spec)["spec"]["activeDeadlineSeconds"] == 3600
    assert "activeDeadlineSeconds" not in build(spec, "prepare")["spec"]
    assert "activeDeadlineSeconds" not in build(make_spec())["spec"]


def test_a_cluster_that_assigns_uids_gets_pods_without_one_and_every_container_the_environment_of_the_cluster() -> None:
    proxies = {"HTTPS_PROXY": "http://proxy:3128", "HOME": "/elsewhere"}
    defaults = replace(DEFAULTS, assign_user=False, pod_env=proxies)
    made = pods.security(defaults)
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(made) and made["runAsNonRoot"]
    environment = pods.environment(defaults, [{"name": "HOME", "value": "/tmp"}])
    assert {each["name"]: each["value"] for each in environment} == {"HTTPS_PROXY": "http://proxy:3128", "HOME": "/tmp"}
    assert pods.security(DEFAULTS) == pods.POD_SECURITY and not pods.environment(DEFAULTS)


@pytest.mark.parametrize("stage", ["prepare", "train"])
def test_the_cache_of_base_models_is_mounted_where_the_operator_has_one_set(make_spec: Any, stage: str) -> None:
    spec = make_spec(model={"uri": "pvc://models/bert"})
    without, cached = (
        build(spec, stage, defaults)["spec"]["template"]["spec"]
        for defaults in (DEFAULTS, replace(DEFAULTS, model_cache_claim="models"))
    )
    assert "LUTHIER_MODEL_CACHE" not in str(without) and "fsGroupChangePolicy" not in str(without)
    found = cached["containers"][0]
    (folder,) = (each["value"] for each in found["env"] if each["name"] == "LUTHIER_MODEL_CACHE")
    (mounted,) = (each for each in found["volumeMounts"] if each["mountPath"] == folder)
    assert "readOnly" not in mounted
    (volume,) = (each for each in cached["volumes"] if each["name"] == mounted["name"])
    assert volume["persistentVolumeClaim"] == {"claimName": "models"}
    assert cached["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    assert len({each["name"] for each in cached["volumes"]}) == len(cached["volumes"])
