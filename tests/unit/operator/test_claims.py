"""pvc:// inputs: each stage mounts what it reads, read-only, and the trainer looks where the operator mounts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from luthier_api.finetunejob import FineTuneJobSpec
from luthier_artifacts import ObjectNotFound, fetch_files, fetch_tree, uri
from luthier_artifacts.errors import InvalidUri
from luthier_artifacts.uri import parse_uri
from luthier_operator.manifests import claims

pytestmark = pytest.mark.unit

DATASET = {
    "train": {"uri": "pvc://data/reviews/train.csv"},
    "eval": {"uri": "pvc://data/reviews/eval.csv"},
    "test": {"uri": "s3://data/test.csv"},
}


def test_prepare_mounts_every_claim_once_and_train_only_that_of_the_model(make_spec: Any) -> None:
    spec: FineTuneJobSpec = make_spec(model={"uri": "pvc://models.v2/bert"}, dataset=DATASET)
    assert claims.claims(spec, "prepare") == ["data", "models.v2"]
    assert claims.volumes(spec, "train") == [
        {"name": "claim-0", "persistentVolumeClaim": {"claimName": "models.v2", "readOnly": True}}
    ]
    assert claims.mounts(spec, "prepare") == [
        {"name": "claim-0", "mountPath": "/mnt/claims/data", "readOnly": True},
        {"name": "claim-1", "mountPath": "/mnt/claims/models.v2", "readOnly": True},
    ]


def test_a_job_without_claims_is_made_as_before(make_spec: Any) -> None:
    assert claims.volumes(make_spec(), "prepare") == claims.mounts(make_spec(), "prepare") == []


@pytest.mark.parametrize(
    "place", ["pvc://data/reviews.csv", "pvc://data.v2/a/b.jsonl", "pvc://data/folder/", "pvc://data/part-*.csv"]
)
def test_the_trainer_looks_where_the_operator_mounts(make_spec: Any, place: str) -> None:
    spec: FineTuneJobSpec = make_spec(dataset={"train": {"uri": place}})
    (mount,) = claims.mounts(spec, "prepare")
    folder = parse_uri(place).folder
    assert folder and folder.is_relative_to(mount["mountPath"])
    assert parse_uri(place).uri == place.rstrip("/"), "messages name it as the user did"


@pytest.mark.parametrize(
    "place", ["pvc://data/../other/x.csv", "pvc://data/a/..", "pvc://data/./x.csv", "pvc://../x", "pvc://data/a//b"]
)
def test_a_path_that_leaves_its_claim_is_refused_by_the_trainer_whatever_the_api_server_let_in(place: str) -> None:
    with pytest.raises(InvalidUri):
        parse_uri(place)


@pytest.mark.parametrize(
    "place",
    ["pvc://data", "pvc://Data/x.csv", "pvc:///x.csv", "pvc://team/../x.csv\n", "pvc://other_ns/x", "pvc://a b/x"],
)
def test_what_is_no_name_of_a_claim_never_reaches_a_volume(make_spec: Callable[..., Any], place: str) -> None:
    with pytest.raises(ValidationError):
        make_spec(dataset={"train": {"uri": place}})


def test_the_same_bytes_have_the_same_digest_on_a_claim_and_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uri, "CLAIMS_DIR", str(tmp_path / "claims"))
    for place in (tmp_path / "claims" / "data" / "reviews", tmp_path / "folder"):
        place.mkdir(parents=True)
        (place / "a.csv").write_text("text,label\ngood,1\n")
    on_claim = fetch_files("pvc://data/reviews/a.csv", tmp_path / "one")
    in_folder = fetch_files(f"file://{tmp_path}/folder/a.csv", tmp_path / "two")
    assert on_claim.digest == in_folder.digest
    assert (tmp_path / "one" / "a.csv").read_text() == "text,label\ngood,1\n"
    before = on_claim.digest
    (tmp_path / "claims" / "data" / "reviews" / "a.csv").write_text("text,label\nbad,0\n")
    assert fetch_tree("pvc://data/reviews", tmp_path / "three").digest != before
    with pytest.raises(ObjectNotFound, match=r"pvc://data/reviews/b\.csv does not exist"):
        fetch_files("pvc://data/reviews/b.csv", tmp_path / "four")
