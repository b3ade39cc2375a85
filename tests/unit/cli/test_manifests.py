"""YAML files: what is wrong with one is said with its field, and a pin changes one value and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from luthier.errors import Invalid, NotFound
from luthier.manifests import Pin, pinned, read_manifests
from support.examples import MANIFESTS

pytestmark = pytest.mark.unit

HEAD = "apiVersion: luthier.dev/v1alpha1\nkind: ModelDeployment\nmetadata:\n  name: reviews\nspec:\n"
V1, V2 = "20260101-120000-0a1b2c3d", "20260202-120000-99999999"
DIGEST = f"sha256:{'1' * 64}"
FILE = Path("production.yaml")
BLOCK = HEAD + "  model:\n    fineTuneJobRef:  # of production\n      name: reviews   # theirs\n  replicas: 2\n"


def test_a_version_is_added_on_a_line_of_its_own_and_comments_stay() -> None:
    assert pinned(BLOCK, Pin(V1), FILE) == BLOCK.replace("# theirs\n", f"# theirs\n      version: {V1}\n")


def test_a_version_that_is_there_is_replaced_whatever_its_quotes() -> None:
    text = BLOCK.replace("# theirs\n", f'# theirs\n      version: "{V1}" # release 7\n')
    assert pinned(text, Pin(V2), FILE) == text.replace(f'"{V1}"', V2)


def test_a_mapping_in_braces_stays_in_braces() -> None:
    text = HEAD + "  model: {fineTuneJobRef: {name: reviews}} # one line\n"
    assert pinned(text, Pin(V1), FILE) == text.replace("{name: reviews}", f"{{name: reviews, version: {V1}}}")


def test_a_model_by_uri_gets_uri_and_digest_together() -> None:
    text = HEAD + "  model:\n    uri: s3://models/x/versions/old\n    # verified\n    digest: sha256:000\n"
    uri = f"s3://models/x/versions/{V1}"
    after = pinned(text, Pin(V1, uri, DIGEST), FILE)
    assert after == text.replace("s3://models/x/versions/old", uri).replace("sha256:000", DIGEST)
    with pytest.raises(Invalid, match="--uri and --digest"):
        pinned(text, Pin(V1), FILE)


def test_of_several_deployments_the_named_one_is_edited() -> None:
    other = BLOCK.replace("name: reviews\nspec", "name: tickets\nspec")
    text = f"{BLOCK}---\n{other}"
    with pytest.raises(Invalid, match="choose one with --name: reviews, tickets"):
        pinned(text, Pin(V1), FILE)
    first, second = pinned(text, Pin(V1), FILE, "tickets").split("---\n")
    assert first == BLOCK and f"version: {V1}" in second
    with pytest.raises(Invalid, match="no ModelDeployment none; it has"):
        pinned(text, Pin(V1), FILE, "none")


@pytest.mark.parametrize("version", ["1.0", "yes", "2026-01-01", "a: b", V1])
def test_a_version_is_read_back_as_the_text_that_it_is(version: str) -> None:
    found = yaml.safe_load(pinned(BLOCK, Pin(version), FILE))
    assert found["spec"]["model"]["fineTuneJobRef"] == {"name": "reviews", "version": version}


def test_a_file_without_a_line_end_is_pinned_too() -> None:
    text = HEAD + "  model:\n    fineTuneJobRef:\n      name: reviews"
    assert yaml.safe_load(pinned(text, Pin(V1), FILE))["spec"]["model"]["fineTuneJobRef"]["version"] == V1


def test_a_line_that_is_added_ends_as_the_others_do() -> None:
    text = BLOCK.replace("\n", "\r\n")
    assert pinned(text, Pin(V1), FILE) == text.replace("# theirs\r\n", f"# theirs\r\n      version: {V1}\r\n")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BLOCK + "  replcas: 2\n", "ModelDeployment reviews: spec.replcas: there is no such field"),
        (BLOCK.replace("replicas: 2", "replicas: 0"), "spec: replicas must be at least 1"),
        (BLOCK + "  autoscaling: {}\n", "give either replicas"),
        ("a: [", "line 1 is not YAML"),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\n",
            r"holds Secret \(v1\); luthier takes .* and BatchPrediction of",
        ),
        ("- 1\n", "no Kubernetes resource"),
        ("", "holds no resource"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_field(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(Invalid, match=sentence):
        read_manifests(path)


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_manifests(tmp_path / "none.yaml")


def test_every_example_of_the_repository_is_accepted() -> None:
    assert any("kind: BatchPrediction" in path.read_text() for path in MANIFESTS)
    for path in MANIFESTS:
        assert read_manifests(path), path
