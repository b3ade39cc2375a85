"""What the Jobs look like that are given to Kubernetes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_api.documents import GRACE_VARIABLE, Resolved, RunDocument
from luthier_api.exitcodes import OUTCOMES, Retry
from luthier_operator import names
from luthier_operator.defaults import Defaults
from luthier_operator.manifests.jobs import job
from luthier_operator.observed import Meta

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
    assert {next(iter(set(v) - {"name"})) for v in made["volumes"]} <= {"downwardAPI", "emptyDir", "configMap"}


def test_the_training_pod_is_given_time_for_its_last_checkpoint_and_told_how_much(make_spec: Any) -> None:
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


@pytest.mark.parametrize(
    ("changes", "roles", "required"),
    [
        pytest.param(
            {}, {"OUTPUT"}, {"OUTPUT_AWS_ACCESS_KEY_ID", "OUTPUT_AWS_SECRET_ACCESS_KEY"}, id="the output's for all"
        ),
        pytest.param(
            {"model": {"uri": "hf://bert", **SECRET}},
            {"OUTPUT", "MODEL"},
            {"OUTPUT_AWS_ACCESS_KEY_ID", "OUTPUT_AWS_SECRET_ACCESS_KEY", "MODEL_HF_TOKEN"},
            id="a hub needs only a token",
        ),
        pytest.param(
            {"dataset": {"train": {"uri": "s3://data/a.csv"}, **SECRET}},
            {"OUTPUT", "DATASET"},
            {
                *("OUTPUT_AWS_ACCESS_KEY_ID", "OUTPUT_AWS_SECRET_ACCESS_KEY"),
                *("DATASET_AWS_ACCESS_KEY_ID", "DATASET_AWS_SECRET_ACCESS_KEY"),
            },
            id="data with a Secret of its own",
        ),
        pytest.param({"output": {"name": "m", "uri": "s3://models/"}}, set(), set(), id="the pod's own identity"),
    ],
)
def test_credentials_come_from_the_secrets_that_the_spec_names(
    make_spec: Any, changes: dict[str, Any], roles: set[str], required: set[str]
) -> None:
    secrets = [e for e in container(make_spec(**changes))["env"] if "valueFrom" in e]
    assert len({e["name"] for e in secrets}) == len(secrets)
    assert {e["name"].split("_")[1] for e in secrets} == roles
    needed = {e["name"] for e in secrets if not e["valueFrom"]["secretKeyRef"]["optional"]}
    assert needed == {f"LUTHIER_{name}" for name in required}


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
    wanted = {Retry.NEVER: "FailJob", Retry.FREE: "Ignore", Retry.COUNTED: "Count"}

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
