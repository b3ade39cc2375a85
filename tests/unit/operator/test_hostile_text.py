"""What a user writes reaches a pod as data: in the document, or as the name of something in the pod's own namespace.

Never as a command, as an argument, in the text of a variable (where Kubernetes expands `$(NAME)`), or as a field.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from luthier_api.documents import Resolved, RunDocument
from luthier_api.finetunejob import FineTuneJobSpec
from luthier_api.modeldeployment import ModelDeploymentSpec
from luthier_api.storage import StorageAccess
from luthier_api.training import TrainingSpec
from luthier_operator.manifests import rayservice
from luthier_operator.manifests.access import Grant
from luthier_operator.manifests.jobs import job
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.names import Stage
from luthier_operator.model.views import Meta
from support.operator.generated_specs import HOSTILE, LEAST, SCHEMAS, specs

pytestmark = pytest.mark.unit

DEFAULTS = Defaults(trainer_image="trainer:1", server_image="server:1")
OWNER = Meta("FineTuneJob", "team", "reviews", "uid-1", 1)
HEX = "a" * 64
RESOLVED = Resolved(run_key=HEX, data_key=HEX, model_digest=f"sha256:{HEX}", dataset_digest=f"sha256:{HEX}")
STAGES: tuple[Stage, Stage] = ("prepare", "train")
COMMANDS = {"prepare": ["prepare", "/etc/luthier/run.json"], "train": ["train", "/etc/luthier/run.json"]}
MARK = "zq9"
# Where a name that the user chose may stand in a pod: each is a reference within the pod's own namespace, a choice of
# node, or a quantity.
NAMES = (
    ".containers[].image",
    ".containers[].volumeMounts[].mountPath",
    ".volumes[].configMap.",
    ".volumes[].projected.sources[].secret.name",
    ".volumes[].secret.secretName",
    ".volumes[].persistentVolumeClaim.claimName",
    ".imagePullSecrets[].name",
    ".serviceAccountName",
    ".priorityClassName",
    ".nodeSelector",
    ".tolerations[]",
)


def job_of(spec: FineTuneJobSpec, stage: Stage) -> dict[str, Any]:
    resolved = RESOLVED if stage == "train" else None
    return job(OWNER, spec, stage=stage, run="reviews-1", spec_hash=HEX, resolved=resolved, defaults=DEFAULTS)


def texts(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in a manifest, keys too, with its path."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{path}{{}}", key
            yield from texts(value, f"{path}.{key}" if MARK not in key else f"{path}{{}}")
    elif isinstance(node, list):
        for item in node:
            yield from texts(item, f"{path}[]")
    elif isinstance(node, str):
        yield path, node


@settings(deadline=None, max_examples=40)
@given(specs("FineTuneJob"))
def test_no_text_of_a_spec_changes_what_a_pod_runs_or_is_lost_on_its_way(raw: dict[str, Any]) -> None:
    try:
        spec = FineTuneJobSpec.model_validate(raw)
    except ValidationError:
        return  # it would get a condition
    for stage in STAGES:
        manifest = job_of(spec, stage)
        template = manifest["spec"]["template"]
        (container,) = template["spec"]["containers"]
        assert container["command"] == ["python", "-m", "luthier_trainer"]
        assert container["args"] == COMMANDS[stage]
        document = RunDocument.from_json(json.loads(json.dumps(template))["metadata"]["annotations"][DOCUMENT])
        assert document.spec == TrainingSpec.model_validate(spec.to_wire())
        plain = [each.get("value", "") for each in container["env"]]
        assert not [value for value in plain if "$(" in value]
        assert {"initContainers", "hostNetwork", "hostPID", "hostIPC"}.isdisjoint(template["spec"])


DOCUMENT = "luthier.dev/run-document"


def marked(node: dict[str, Any], name: str) -> Any:
    """Return a value of a schema's node in which every text carries the mark, or None where no text is free."""
    if "enum" in node or "type" not in node:
        return None
    match node["type"]:
        case "object" if "properties" in node:
            return {
                key: value for key, child in node["properties"].items() if (value := marked(child, key)) is not None
            }
        case "object":
            return {f"{MARK}.example/x": "1" if name in ("requests", "limits") else MARK}
        case "array":
            inner = marked(node["items"], name)
            return None if inner is None else [inner]
        case "string" if name in _FITTING:
            return _FITTING[name]
        case "string" if node.get("maxLength") == 32:
            return None  # a number
        case "string":
            return MARK
        case _:
            return None


_FITTING = {
    "uri": f"s3://{MARK}/{MARK}.csv",
    "endpoint": f"https://{MARK}.example.com",
    "targetModules": MARK,
    # One character.
    "separator": "$",
    "escape": "$",
    "digest": f"sha256:{HEX}",
    "sha256": HEX,
    "path": f"/{MARK}",
    "allowOrigins": f"https://{MARK}.example.com",
}


def complete(kind: str) -> dict[str, Any]:
    spec = marked(SCHEMAS[kind], "spec")
    assert isinstance(spec, dict)
    return spec


def test_every_text_of_a_finetunejob_reaches_its_pods_only_as_data_or_as_a_name_in_its_own_namespace() -> None:
    raw = complete("FineTuneJob")
    raw["task"] = "multi-label"
    raw["labels"] = [f"{MARK}{text}" for text in HOSTILE]
    raw["method"] = {"type": "LoRA", "lora": {"targetModules": [MARK]}}
    for file in ("train", "eval", "test"):
        # Columns are named or listed.
        for name in ("textColumn", "labelColumn", "labelSeparator"):
            del raw["dataset"][file][name]
    # Each kind of place has fields of its own.
    for file, uri, others in (
        ("train", f"pvc://{MARK}/{MARK}.csv", ("revision", "config", "split")),
        ("eval", f"hf://datasets/{MARK}/{MARK}", ("sha256",)),
        ("test", f"https://{MARK}.example.com/{MARK}.csv", ("revision", "config", "split")),
    ):
        raw["dataset"][file]["uri"] = uri
        for name in others:
            del raw["dataset"][file][name]
    raw["tracking"]["mlflow"]["uri"] = f"http://{MARK}"
    raw["evaluation"]["gates"][0]["threshold"] = "0.5"
    del raw["dataset"]["split"], raw["hyperparameters"]
    spec = FineTuneJobSpec.model_validate(raw)
    for stage in STAGES:
        pod = job_of(spec, stage)["spec"]["template"]["spec"]
        found = {path for path, text in texts(pod) if MARK in text}
        strange = {path for path in found if not path.startswith(NAMES) and ".resources." not in path}
        assert strange == set(), strange
        assert ".containers[].image" in found, "the test sees marks"


def test_every_text_of_a_modeldeployment_reaches_its_pods_only_as_a_name_in_its_own_namespace() -> None:
    raw = complete("ModelDeployment")
    raw["model"] = {"fineTuneJobRef": {"name": MARK, "version": MARK}}
    # Steps and a mirror hold numbers; the header's name goes to the server, which compares it.
    raw["rollout"] = {"sticky": {"header": MARK}}
    raw["runtime"]["engine"] = "torch"  # as adapters need it
    del raw["expose"]["ingress"], raw["expose"]["tls"]
    spec = ModelDeploymentSpec.model_validate({**raw, "autoscaling": None})
    access = StorageAccess.model_validate({"secretRef": {"name": MARK}, "caBundle": {"name": MARK, "key": MARK}})
    owner = Meta("ModelDeployment", "team", "reviews", "uid-1", 1)
    cluster = rayservice.cluster_config(owner, spec, Grant("model", access), DEFAULTS)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        strange = {p for p, text in texts(pod) if MARK in text and not p.startswith(NAMES) and ".resources." not in p}
        assert strange == set(), strange
        assert not [c for c in pod["containers"] if "command" in c or "args" in c], "the image's own"
        assert MARK not in json.dumps(group["rayStartParams"])


@pytest.mark.parametrize("kind", sorted(LEAST))
def test_no_reference_of_a_resource_can_name_another_namespace(kind: str) -> None:
    """A field that could would be called so, or would take a name with a slash."""

    def walk(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        yield path, node
        for name, child in node.get("properties", {}).items():
            yield from walk(child, f"{path}.{name}")
        if "items" in node:
            yield from walk(node["items"], f"{path}[]")

    fields = dict(walk(SCHEMAS[kind]))
    # A Gateway's listener says itself which namespaces may use it.
    assert [path for path in fields if "namespace" in path.lower() and path != ".expose.gateway.namespace"] == []
    references = {
        path: node
        for path, node in fields.items()
        if node.get("type") == "string" and path.endswith(("Ref.name", "caBundle.name", "Name", "Secrets[].name"))
    }
    assert len(references) >= (9 if kind == "FineTuneJob" else 6), sorted(references)
    assert not [path for path, node in references.items() if "/" in node.get("pattern", "/")]
