"""How the command reaches storage: with the user's own keys, wherever the resource says that it lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from luthier.errors import Denied, Invalid, NotFound, Unreachable
from luthier.storage import Place, config_of, fetch, list_all, manifest_at, read_json, split_version_uri, told
from luthier_artifacts import Metadata, ObjectNotFound, StorageConfig, StorageDenied, StorageUnavailable, open_registry
from support.cli import V1

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT_URL", "ENDPOINT_URL_S3", "REGION", "DEFAULT_REGION", "CA_BUNDLE", "ACCESS_KEY_ID"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Two versions of a model in a folder."""
    place = Place(f"file://{tmp_path}/store", "reviews", StorageConfig())
    for number in range(2):
        files = tmp_path / f"files-{number}"
        files.mkdir()
        (files / "report.html").write_text(f"report {number}")
        (files / "metrics.json").write_text(f'{{"number": {number}}}')
        open_registry(place.uri, place.name).publish(files, f"{number}" * 8, Metadata(metrics={"f1": number}))
    return place


def test_the_user_s_endpoint_goes_before_the_resource_s(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = {"endpoint": "http://s3.inside.svc:8333", "region": "eu", "forcePathStyle": False}
    assert config_of(inside) == StorageConfig(inside["endpoint"], "eu", force_path_style=False, max_attempts=2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:8333")
    monkeypatch.setenv("AWS_REGION", "us")
    found = config_of(inside)
    assert (found.endpoint, found.region, found.path_style) == ("http://127.0.0.1:8333", "us", True)


def test_keys_in_the_environment_are_read_for_each_request_and_profiles_are_left_to_boto3(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert config_of({}).credentials_env is None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    assert config_of({}).credentials_env == ""


def test_versions_are_listed_newest_first_and_their_files_read(place: Place, tmp_path: Path) -> None:
    versions = list_all(place)
    assert sorted(versions, key=lambda each: each.version, reverse=True) == versions and len(versions) == 2
    uri = place.registry.version_uri(versions[0].version)
    number = int(versions[0].metrics["f1"])
    assert read_json(uri, place.config, "metrics.json") == {"number": number}
    assert read_json(uri, place.config, "none.json") == {}
    assert fetch(uri, place.config, "report.html", tmp_path / "into").read_text() == f"report {number}"
    with pytest.raises(NotFound, match=r"has no console\.log"):
        fetch(uri, place.config, "console.log", tmp_path / "other")
    with pytest.raises(NotFound):
        manifest_at(f"{place.uri}/reviews/versions/{V1}", place.config)


@pytest.mark.parametrize("uri", ["reviews", "s3://bucket/reviews", "s3://b/p/reviews/checkpoints/x", "versions/x"])
def test_what_is_no_version_s_folder_is_refused(uri: str) -> None:
    assert split_version_uri(uri) is None
    with pytest.raises(Invalid, match="not the folder of a version"):
        manifest_at(uri, StorageConfig())
    assert split_version_uri(f"s3://b/p/reviews/versions/{V1}/") == ("s3://b/p", "reviews", V1)


@pytest.mark.parametrize(
    ("theirs", "ours", "hint"),
    [
        (ObjectNotFound("Not there."), NotFound, "Not there."),
        (StorageDenied("No."), Denied, "Your own keys are used here"),
        (StorageUnavailable("Nobody."), Unreachable, "forward its port and set AWS_ENDPOINT_URL"),
    ],
)
def test_what_storage_says_is_told_with_what_to_do_on_this_machine(
    theirs: Exception, ours: type[Exception], hint: str
) -> None:
    with pytest.raises(ours, match=hint), told():
        raise theirs
