"""What storage answers for a moment only is tried again, a few times."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from luthier_artifacts import StorageUnavailable, open_store, s3

pytestmark = pytest.mark.unit

CONFLICT = ClientError(
    {"Error": {"Code": "ConditionalRequestConflict"}, "ResponseMetadata": {"HTTPStatusCode": 409}}, "PutObject"
)


class Client:
    """Answers that another conditional write is in flight, some times."""

    def __init__(self, conflicts: int) -> None:
        self.conflicts = conflicts
        self.requests: list[dict[str, Any]] = []

    def put_object(self, **request: Any) -> dict[str, str]:
        self.requests.append(request)
        if len(self.requests) <= self.conflicts:
            raise CONFLICT
        return {"ETag": '"tag"'}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3._put.retry, "sleep", lambda seconds: None)  # type: ignore[attr-defined]


def test_a_conditional_write_that_meets_another_is_tried_again_with_its_condition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Client(conflicts=4)
    monkeypatch.setattr(s3, "_client", lambda config: client)
    assert open_store("s3://models/here").write("x", b"1", if_match="old") == "tag"
    assert client.requests == [{"Bucket": "models", "Key": "here/x", "Body": b"1", "IfMatch": '"old"'}] * 5


def test_storage_that_always_answers_with_a_conflict_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_client", lambda config: Client(conflicts=99))
    with pytest.raises(StorageUnavailable, match="s3://models/here/x is being written by too many at once; try again"):
        open_store("s3://models/here").write("x", b"1", if_absent=True)
