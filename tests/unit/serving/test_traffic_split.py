"""Shares of the traffic: exact over a turn, and spread evenly within it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_serving.replica.traffic_split import TrafficSplit

pytestmark = pytest.mark.unit

WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 100), max_size=6)


@given(WEIGHTS)
def test_after_a_full_turn_everyone_has_had_exactly_its_share(weights: dict[str, int]) -> None:
    turns, total = TrafficSplit(weights), sum(weights.values())
    order = [turns.next() for _ in range(total)]
    assert {name: order.count(name) for name in weights} == weights


@given(st.dictionaries(st.sampled_from("abcdef"), st.just(0)))
def test_with_no_weight_nobody_is_chosen(weights: dict[str, int]) -> None:
    assert TrafficSplit(weights).next() is None


def test_a_canary_of_ten_percent_never_gets_two_requests_in_a_row() -> None:
    turns = TrafficSplit({"stable": 90, "canary": 10})
    order = [turns.next() for _ in range(1000)]
    places = [index for index, name in enumerate(order) if name == "canary"]
    assert {later - earlier for earlier, later in pairwise(places)} == {10}


@given(st.integers(1, 99))
def test_a_user_whom_a_canary_has_met_meets_it_at_a_larger_share_too(percent: int) -> None:
    few = TrafficSplit({"stable": 100 - percent, "canary": percent})
    more = TrafficSplit({"stable": 99 - percent, "canary": percent + 1})
    met = {user for user in range(300) if few.of_key(f"user-{user}") == "canary"}
    assert met <= {user for user in range(300) if more.of_key(f"user-{user}") == "canary"}


def test_a_user_s_revision_depends_on_nothing_but_its_key_and_the_weights() -> None:
    # Replicas are processes of their own: what one chooses, another must choose too.
    split = TrafficSplit({"stable": 50, "canary": 50})
    assert [split.of_key(f"user-{user}") for user in range(6)] == ["stable"] * 2 + ["canary"] * 4


def test_of_many_users_each_revision_has_its_share() -> None:
    split = TrafficSplit({"stable": 90, "canary": 10})
    found = [split.of_key(f"user-{user}") for user in range(10_000)]
    assert abs(found.count("canary") - 1000) < 100
    assert TrafficSplit({}).of_key("anybody") is None
