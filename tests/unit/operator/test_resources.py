"""An object that was stored under another schema ends in a condition, never in a crash."""

from __future__ import annotations

import logging

import pytest

from luthier_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from luthier_operator.model.resources import Unreadable, read_spec, read_status
from luthier_operator.model.views import Meta

pytestmark = pytest.mark.unit

META = Meta("FineTuneJob", "team", "reviews", "uid-1", 3)


def test_a_spec_that_cannot_be_read_is_named_by_its_field_with_what_to_do() -> None:
    with pytest.raises(Unreadable, match=r"^spec\.model: Field required\. Correct it and apply the resource again\.$"):
        read_spec(FineTuneJobSpec, {"spec": {"dataset": {"train": {"uri": "s3://d/a.csv"}}, "output": {"name": "m"}}})


@pytest.mark.parametrize("status", [None, {}, {"aFieldOfALaterRelease": 1}])
def test_a_status_that_is_missing_or_of_another_release_is_read(status: object) -> None:
    assert read_status(FineTuneJobStatus, {"status": status}, META) == FineTuneJobStatus()


def test_a_status_that_cannot_be_read_is_made_anew_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = read_status(FineTuneJobStatus, {"status": {"observedGeneration": "three"}}, META)
    assert found == FineTuneJobStatus()
    assert "team/reviews" in caplog.text
