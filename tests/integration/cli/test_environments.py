"""examples/environments as kubectl renders it: what each environment gets, and that references follow their names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from luthier.manifests import Pin, pinned, read_manifests
from luthier_dev.kubectl import Kubectl
from support.cli import DIGEST, V2
from support.examples import ENVIRONMENTS

pytestmark = pytest.mark.integration

Raw = dict[str, Any]
Render = Callable[[str], dict[str, Raw]]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the example, to edit."""
    return Path(shutil.copytree(ENVIRONMENTS, tmp_path / "repository"))


@pytest.fixture
def render(repository: Path) -> Render:
    """What an overlay becomes, checked against the contract: {kind: resource}. Needs no cluster."""

    def run(overlay: str) -> dict[str, Raw]:
        text = Kubectl(repository / "no-kubeconfig")("kustomize", str(repository / "overlays" / overlay))
        luthier = [each for each in yaml.safe_load_all(text) if each["apiVersion"].startswith("luthier.dev/")]
        rendered = repository / f"{overlay}.yaml"
        rendered.write_text(yaml.safe_dump_all(luthier))
        return {each.kind.name: each.raw for each in read_manifests(rendered)}

    return run


def overlay(repository: Path, name: str, *resources: Raw, **kustomization: Any) -> None:
    folder = repository / "overlays" / name
    folder.mkdir()
    (folder / "resources.yaml").write_text(yaml.safe_dump_all(resources))
    listed = ["resources.yaml"] if resources else []
    listed += kustomization.pop("resources", [])
    (folder / "kustomization.yaml").write_text(json.dumps({"resources": listed, **kustomization}))


def test_staging_trains_and_follows_and_production_serves_one_version_without_a_finetunejob(render: Render) -> None:
    staging, production = render("staging"), render("production")
    assert set(staging) == {"FineTuneJob", "ModelDeployment"} and set(production) == {"ModelDeployment"}
    followed = staging["ModelDeployment"]["spec"]["model"]
    assert followed == {"fineTuneJobRef": {"name": staging["FineTuneJob"]["metadata"]["name"]}}
    assert set(production["ModelDeployment"]["spec"]["model"]) == {"uri", "digest", "endpoint", "secretRef"}
    namespaces = {each["metadata"]["namespace"] for each in (*staging.values(), *production.values())}
    assert namespaces == {"reviews-staging", "reviews-production"}
    common = [each["ModelDeployment"]["spec"]["runtime"] for each in (staging, production)]
    assert common[0] == common[1], "the base is in both"


def test_a_promotion_changes_what_production_gets_and_nothing_of_staging(render: Render, repository: Path) -> None:
    before = {name: render(name) for name in ("staging", "production")}
    file = repository / "overlays" / "production" / "modeldeployment.yaml"
    uri = f"s3://models/registry/reviews/versions/{V2}"
    file.write_text(pinned(file.read_text(), Pin(V2, uri, DIGEST), file))
    after = render("production")
    model = after["ModelDeployment"]["spec"]["model"]
    assert (model["uri"], model["digest"]) == (uri, DIGEST)
    model |= {name: before["production"]["ModelDeployment"]["spec"]["model"][name] for name in ("uri", "digest")}
    assert after == before["production"] and render("staging") == before["staging"]


def test_a_preview_beside_others_refers_to_its_own_finetunejob_and_secret(render: Render, repository: Path) -> None:
    secret = {"name": "s3-credentials", "literals": ["AWS_ACCESS_KEY_ID=x"]}
    names = {"namePrefix": "pr-7-", "namespace": "reviews-previews"}
    overlay(repository, "preview", resources=["../staging"], secretGenerator=[secret], **names)
    preview = render("preview")
    job, deployment = preview["FineTuneJob"], preview["ModelDeployment"]
    assert job["metadata"]["name"] == deployment["metadata"]["name"] == "pr-7-reviews"
    assert deployment["spec"]["model"]["fineTuneJobRef"] == {"name": "pr-7-reviews"}
    assert job["spec"]["output"]["secretRef"]["name"].startswith("pr-7-s3-credentials-"), "the hash of its keys too"
    assert job["spec"]["output"]["name"] == "reviews", "the model in the registry is no object of the cluster"


CORE = [
    {"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}} for kind in ("Secret", "ConfigMap", "ServiceAccount")
]
QUEUE = {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "LocalQueue", "metadata": {"name": "x"}}


def test_every_reference_that_the_configuration_names_follows_a_prefix(repository: Path) -> None:
    """The paths are filled with what they name, since kustomize passes over one that it cannot follow."""
    config = yaml.safe_load((repository / "base" / "kustomizeconfig.yaml").read_text())
    paths = [(each["kind"], each["path"]) for named in config["nameReference"] for each in named["fieldSpecs"]]
    resources: dict[str, Raw] = {}
    for kind, path in paths:
        empty: Raw = {"apiVersion": "luthier.dev/v1alpha1", "kind": kind, "metadata": {"name": "x"}}
        write(resources.setdefault(kind, empty), path, ["x"] if path.endswith("imagePullSecrets") else "x")
    overlay(repository, "all", *resources.values(), *CORE, QUEUE, namePrefix="a-", resources=["../../base"])
    rendered = Kubectl(repository / "no-kubeconfig")("kustomize", str(repository / "overlays" / "all"))
    renamed = {each["kind"]: each for each in yaml.safe_load_all(rendered) if each["metadata"]["name"] == "a-x"}
    assert not [(kind, path) for kind, path in paths if read(renamed[kind], path) not in ("a-x", ["a-x"])]


def test_pull_secrets_follow_a_prefix_as_a_pod_writes_them_too(repository: Path) -> None:
    job = {"apiVersion": "luthier.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "x"}}
    job["spec"] = {"imagePullSecrets": [{"name": "x"}, "x"]}
    overlay(repository, "pull", job, *CORE, namePrefix="a-", resources=["../../base"])
    rendered = Kubectl(repository / "no-kubeconfig")("kustomize", str(repository / "overlays" / "pull"))
    found = next(each for each in yaml.safe_load_all(rendered) if each["kind"] == "FineTuneJob")
    assert found["spec"]["imagePullSecrets"] == [{"name": "a-x"}, "a-x"]


def test_a_patch_replaces_a_list_and_a_json_patch_adds_to_it(render: Render, repository: Path) -> None:
    job = {"apiVersion": "luthier.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "reviews"}}
    gate = {"metric": "eval_f1_macro", "threshold": "0.8"}
    merged = json.dumps({**job, "spec": {"evaluation": {"gates": [gate]}}})
    added = json.dumps([{"op": "add", "path": "/spec/evaluation/gates/-", "value": gate}])
    overlay(repository, "merged", resources=["../staging"], patches=[{"patch": merged}])
    overlay(
        repository, "added", resources=["../staging"], patches=[{"patch": added, "target": {"kind": "FineTuneJob"}}]
    )
    before = render("staging")["FineTuneJob"]["spec"]["evaluation"]["gates"]
    assert render("merged")["FineTuneJob"]["spec"]["evaluation"]["gates"] == [gate]
    assert render("added")["FineTuneJob"]["spec"]["evaluation"]["gates"] == [*before, gate]


def write(resource: Raw, path: str, value: Any) -> None:
    *parents, last = path.split("/")
    for name in parents:
        resource = resource.setdefault(name, {})
    resource[last] = value


def read(resource: Raw, path: str) -> Any:
    for name in path.split("/"):
        resource = resource[name]
    return resource
