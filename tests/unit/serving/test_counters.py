"""What a server replica counts of each revision, in windows, and what it reports of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_api.documents import RevisionCounts
from luthier_serving.replica.agreement import Agreement
from luthier_serving.replica.counters import Counters, bucket

pytestmark = pytest.mark.unit


@given(st.floats(0.0001, 3600))
def test_a_bucket_holds_the_times_between_its_edges_which_are_nine_percent_apart(seconds: float) -> None:
    upper_ms = 2 ** (bucket(seconds) / 8)
    assert upper_ms / 1.0906 <= seconds * 1000 <= upper_ms * 1.000001


@pytest.mark.parametrize(("seconds", "key"), [(0.001, 0), (0.0010001, 1), (0.002, 8), (1.024, 80), (0.0, -64)])
def test_the_buckets_are_eighths_of_an_octave_of_milliseconds(seconds: float, key: int) -> None:
    assert bucket(seconds) == key


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9, 8 * 3600.0])
def test_no_time_is_too_short_or_too_long_for_a_report(seconds: float) -> None:
    counters = Counters()
    counters.observe("rev-1", seconds, failed=False)
    assert RevisionCounts.from_json(counters.report()["rev-1"].to_json()).requests == 1


def test_requests_are_counted_by_revision_and_only_answered_ones_have_a_time() -> None:
    counters = Counters()
    for failed in (False, False, True):
        counters.observe("rev-1", 0.002, failed=failed)
    counters.observe("rev-2", 0.001, failed=False)
    report = counters.report()
    assert report["rev-1"] == RevisionCounts(requests=3, errors=1, latency={8: 2})
    assert report["rev-2"] == RevisionCounts(requests=1, latency={0: 1})


def test_copies_are_counted_with_their_agreement_and_those_that_were_dropped() -> None:
    counters = Counters()
    counters.compare("rev-2", Agreement(1.0, 0.25, None))
    counters.compare("rev-2", Agreement(0.0, 0.5, "good -> bad"))
    counters.compare("rev-2", Agreement(0.5, 0.0, "good -> bad"))
    counters.drop("rev-2")
    assert counters.report()["rev-2"] == RevisionCounts(
        compared=3, agreement=1.5, confidence_shift=0.75, flips={"good -> bad": 2}, dropped=1
    )


def test_kinds_of_flips_are_bounded_and_known_ones_go_on_counting() -> None:
    counters = Counters()
    for number in [*range(150), 0, 99, 149]:
        counters.compare("rev-2", Agreement(0.0, 0.0, f"a -> {number}"))
    counts = counters.report()["rev-2"]
    assert len(counts.flips) == 100 and counts.compared == 153
    assert (counts.flips["a -> 0"], counts.flips["a -> 99"]) == (2, 2)


def test_a_window_of_another_name_begins_at_zero_and_the_same_goes_on() -> None:
    counters = Counters()
    counters.begin("rev-2/0")
    counters.observe("rev-2", 0.001, failed=False)
    counters.begin("rev-2/0")
    assert counters.report()["rev-2"].requests == 1
    counters.begin("rev-2/1")
    assert (counters.window, counters.report()) == ("rev-2/1", {})
