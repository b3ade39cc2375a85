"""From staging to production: examples/environments, whose production serves what `luthier pin` takes from staging."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from luthier.commands import app, options
from luthier.errors import ExitCode
from luthier.kinds import Resource
from luthier_api.schema import crds
from support.cli import DIGEST, V1, V2, deployment, revision, rolling
from support.cli.remembered import RememberedCluster
from support.examples import ENVIRONMENTS

pytestmark = pytest.mark.unit

Promote = Callable[[Resource], Result]
PRODUCTION = (ENVIRONMENTS / "overlays" / "production" / "modeldeployment.yaml").read_text()


@pytest.fixture
def production(tmp_path: Path) -> Path:
    path = tmp_path / "modeldeployment.yaml"
    path.write_bytes(PRODUCTION.encode())
    return path


@pytest.fixture
def promote(production: Path, monkeypatch: pytest.MonkeyPatch) -> Promote:
    """The command of the README, with this ModelDeployment in staging."""

    def run(staging: Resource) -> Result:
        monkeypatch.setattr(options, "connect", lambda *_, **__: RememberedCluster(staging))
        where = ("--from", "reviews", "-n", "reviews-staging", "--context", "staging")
        return CliRunner().invoke(app, ["pin", str(production), *where], catch_exceptions=False)

    return run


def serving(version: str) -> Resource:
    return deployment(currentVersion=version, revisions=[revision("rev-1", version, 100)])


def changed(before: str, after: str) -> list[str]:
    lines = difflib.ndiff(before.splitlines(keepends=True), after.splitlines(keepends=True))
    return [line for line in lines if line[0] in "+-"]


def test_what_staging_serves_becomes_a_commit_of_two_values(promote: Promote, production: Path) -> None:
    answer = promote(serving(V2))
    assert answer.exit_code == 0, answer.output
    after = production.read_text()
    uri = f"s3://models/reviews/versions/{V2}"
    assert changed(PRODUCTION, after) == [
        f"-     uri: s3://models/registry/reviews/versions/{V1} # as staging serves it\n",
        f"+     uri: {uri} # as staging serves it\n",
        f"-     digest: sha256:{'0' * 64}\n",
        f"+     digest: {DIGEST}\n",
    ]
    assert f"+    uri: {uri}" in answer.stdout, "the commit is shown before it is made"


def test_the_file_of_another_platform_keeps_the_ends_of_its_lines(promote: Promote, production: Path) -> None:
    production.write_bytes(PRODUCTION.replace("\n", "\r\n").encode())
    assert promote(serving(V2)).exit_code == 0
    after = production.read_bytes().decode()
    assert len(changed(PRODUCTION.replace("\n", "\r\n"), after)) == 4


def test_while_staging_rolls_out_there_is_no_version_to_promote(promote: Promote, production: Path) -> None:
    answer = promote(rolling())
    assert answer.exit_code == ExitCode.INVALID
    assert "wait for its rollout to end" in answer.stderr and len(answer.stderr.splitlines()) == 1
    assert production.read_text() == PRODUCTION


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kind: Kustomization\nresources: [../../base]\n", "holds no ModelDeployment"),
        ("- {op: replace, path: /spec/model/uri, value: x}\n", "holds no ModelDeployment"),
        (f"{PRODUCTION}---\n{PRODUCTION.replace('name: reviews', 'name: tickets')}", "choose one with --name"),
        ((ENVIRONMENTS / "base" / "modeldeployment.yaml").read_text(), "has no spec.model"),
    ],
    ids=["a kustomization", "a JSON patch", "two ModelDeployments", "the base"],
)
def test_a_file_in_which_there_is_nothing_to_pin_is_named_in_one_sentence(
    promote: Promote, production: Path, text: str, sentence: str
) -> None:
    production.write_text(text)
    answer = promote(serving(V2))
    assert answer.exit_code == ExitCode.INVALID
    assert str(production) in answer.stderr and sentence in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert production.read_text() == text


# How the fields that name another object are called.
REFERENCES = {
    "fineTuneJobRef": ("FineTuneJob", "/name"),
    "secretRef": ("Secret", "/name"),
    "apiKeysSecretRef": ("Secret", "/name"),
    "secretName": ("Secret", ""),
    "imagePullSecrets": ("Secret", ""),
    "caBundle": ("ConfigMap", "/name"),
    "publicKeyRef": ("ConfigMap", "/name"),
    "serviceAccountName": ("ServiceAccount", ""),
    "queueName": ("LocalQueue", ""),
}
# Of the cluster as a whole, or of another team.
NOT_OURS = {"priorityClassName", "className", "sectionName"}


def fields() -> Iterator[tuple[str, str, str]]:
    """Yield (kind, path, last part of the path) of each field in the schemas."""
    for crd in crds().values():
        spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        for path in _paths(spec, "spec"):
            yield crd["spec"]["names"]["kind"], path, path.rpartition("/")[2]


def _paths(schema: dict[str, Any], path: str) -> Iterator[str]:
    for name, child in schema.get("properties", {}).items():
        yield f"{path}/{name}"
        yield from _paths(child.get("items", child), f"{path}/{name}")


def test_kustomize_is_told_of_every_reference_that_the_schema_has_and_of_no_other() -> None:
    config = yaml.safe_load((ENVIRONMENTS / "base" / "kustomizeconfig.yaml").read_text())
    said = [
        (named["kind"], each["kind"], each["path"]) for named in config["nameReference"] for each in named["fieldSpecs"]
    ]
    there = [(*REFERENCES[field], kind, path) for kind, path, field in fields() if field in REFERENCES]
    assert sorted(said) == sorted((named, kind, path + below) for named, below, kind, path in there)


def test_a_reference_by_a_name_of_its_own_would_be_noticed() -> None:
    ends = ("Ref", "Secret", "Secrets", "ConfigMap", "Bundle", "Name")
    assert {field for _, _, field in fields() if field.endswith(ends)} - NOT_OURS - set(REFERENCES) == set()
