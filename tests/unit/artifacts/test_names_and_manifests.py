from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from luthier_artifacts import FileEntry, IntegrityError, InvalidUri, Manifest, Metadata, parse_uri, tree_digest
from luthier_artifacts.manifest import parse_manifest
from luthier_artifacts.uri import local_path, safe_path

pytestmark = pytest.mark.unit

SHA = "0" * 64

segments = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="/\\"), min_size=1
).filter(lambda text: text not in (".", ".."))
paths = st.lists(segments, min_size=1, max_size=4).map("/".join).filter(lambda path: len(path.encode()) <= 512)


def _manifest(*names: str, **changes: object) -> Manifest:
    files = [FileEntry(path=name, size=1, sha256=SHA) for name in sorted(names)]
    facts = {"name": "m", "version": "v", "created_at": "2026-01-01T00:00:00Z", "writer": "w"}
    return Manifest.model_validate(facts | {"files": files, "digest": tree_digest(files)} | changes)


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "/etc/passwd", "../x", "a/../b", "a/..", "./a", "a//b", "a/", "a\0b", "a\nb", "a\x7f", "a\x85b",
     "a\\..\\b", "a\ud800", "x" * 513, "é" * 300],
)  # fmt: skip
def test_a_name_that_could_leave_its_folder_is_refused(path: str) -> None:
    with pytest.raises(InvalidUri):
        safe_path(path)
    with pytest.raises(ValidationError):
        FileEntry(path=path, size=1, sha256=SHA)


@given(st.text())
def test_a_name_that_is_accepted_stays_inside_whatever_it_is(path: str) -> None:
    folder = Path("/some/folder")
    try:
        joined = local_path(folder, path)
    except InvalidUri:
        return
    assert joined != folder
    assert joined.is_relative_to(folder)
    assert ".." not in joined.parts
    assert PurePosixPath(path).as_posix() == path


@given(paths)
def test_ordinary_names_are_accepted(path: str) -> None:
    assert safe_path(path) == path


@pytest.mark.parametrize(
    ("uri", "bucket", "path", "canonical"),
    [
        ("s3://models", "models", "", "s3://models"),
        ("s3://models/", "models", "", "s3://models"),
        ("s3://my.bucket-1/a/b/", "my.bucket-1", "a/b", "s3://my.bucket-1/a/b"),
        ("s3://models/a b%20?#", "models", "a b%20?#", "s3://models/a b%20?#"),
        ("file:///data/x/", "", "/data/x", "file:///data/x"),
        ("file:///", "", "/", "file:///"),
        (
            Path("/data/my models, 2/größe 100%").as_uri(),
            "",
            "/data/my models, 2/größe 100%",
            "file:///data/my models, 2/größe 100%25",
        ),
        ("file:///my data/ü,b", "", "/my data/ü,b", "file:///my data/ü,b"),
    ],
)
def test_a_uri_has_one_spelling(uri: str, bucket: str, path: str, canonical: str) -> None:
    location = parse_uri(uri)
    assert (location.bucket, location.path, location.uri) == (bucket, path, canonical)
    assert parse_uri(location.uri) == location


@pytest.mark.parametrize(
    "uri",
    ["", "models/x", "http://host/x", "hf://owner/name", "s3:models", "s3://", "s3:///x", "s3://UPPER/x", "s3://ab",
     "s3://models//x", "s3://models/a//b", "s3://models/a/../b", "s3://models/a\nb", "s3://models/x//", "file://data/x",
     "file:///a/../b", "file:///a/%2e%2e/b", "file:///a%2F%2Fb", "file:///a%00b", f"s3://models/{'x' * 1025}"],
)  # fmt: skip
def test_other_uris_are_refused_with_a_sentence(uri: str) -> None:
    with pytest.raises(InvalidUri, match=r"\.$"):
        parse_uri(uri)


@given(st.lists(st.builds(FileEntry, path=paths, size=st.integers(0, 9), sha256=st.just(SHA)), min_size=2))
def test_the_digest_depends_on_the_files_and_not_on_their_order(files: list[FileEntry]) -> None:
    assert tree_digest(files) == tree_digest(reversed(files))
    changed = [files[0].model_copy(update={"size": files[0].size + 1}), *files[1:]]
    assert tree_digest(changed) != tree_digest(files)


def test_a_manifest_survives_writing_and_reading() -> None:
    manifest = _manifest("b/c", "a", run_key="ab", metrics={"f1": 0.9}, labels=["x", "y"])
    assert parse_manifest(manifest.to_json(indent=1).encode(), "here") == manifest
    assert json.loads(manifest.to_json())["runKey"] == "ab"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda wire: wire.update(digest=f"sha256:{'1' * 64}"), "digest"),
        (lambda wire: wire["files"][0].update(size=2), "digest"),
        (lambda wire: wire["files"][0].update(path="../../etc/passwd"), "refused"),
        (lambda wire: wire["files"][0].update(path="/etc/passwd"), "refused"),
        (lambda wire: wire["files"][0].update(path="a\u0000"), "control character"),
        (lambda wire: wire["files"][0].update(path="manifest.json"), "digest|own"),
        (lambda wire: wire["files"].append(wire["files"][0]), "twice"),
        (lambda wire: wire["files"].append({"path": "a/b", "size": 1, "sha256": SHA}), "below another file"),
        (lambda wire: wire.update(folder="../other"), "refused"),
        (lambda wire: wire.update(schemaVersion=2), "schemaVersion"),
        (lambda wire: wire.update(surprise=1), "surprise"),
        (lambda wire: wire.pop("files"), "files"),
        (lambda wire: wire["files"][0].update(sha256="xyz"), "sha256"),
    ],
)
def test_a_damaged_or_hostile_manifest_is_refused_with_a_sentence(damage, sentence: str) -> None:
    wire = json.loads(_manifest("a").to_json())
    damage(wire)
    with pytest.raises(IntegrityError, match=sentence):
        parse_manifest(json.dumps(wire).encode(), "s3://bucket/manifest.json")


def test_a_list_of_files_has_one_order() -> None:
    wire = json.loads(_manifest("a", "b").to_json())
    wire["files"].reverse()
    with pytest.raises(IntegrityError, match="not sorted"):
        parse_manifest(json.dumps(wire).encode(), "s3://bucket/manifest.json")


@given(st.binary(max_size=60))
def test_bytes_that_are_no_manifest_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"^here is not a valid manifest: .*\.$"):
        parse_manifest(data, "here")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_is_refused_before_it_is_written(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Metadata(metrics={"loss": value})
