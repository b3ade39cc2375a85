"""Shares of the traffic: exact over a turn, and spread evenly within it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_serving.replica.traffic_split import WeightedRoundRobin

pytestmark = pytest.mark.unit

WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 100), max_size=6)


@given(WEIGHTS)
def test_after_a_full_turn_everyone_has_had_exactly_its_share(weights: dict[str, int]) -> None:
    turns, total = WeightedRoundRobin(weights), sum(weights.values())
    order = [turns.next() for _ in range(total)]
    assert {name: order.count(name) for name in weights} == weights


@given(st.dictionaries(st.sampled_from("abcdef"), st.just(0)))
def test_with_no_weight_nobody_is_chosen(weights: dict[str, int]) -> None:
    assert WeightedRoundRobin(weights).next() is None


def test_a_canary_of_ten_percent_never_gets_two_requests_in_a_row() -> None:
    turns = WeightedRoundRobin({"stable": 90, "canary": 10})
    order = [turns.next() for _ in range(1000)]
    places = [index for index, name in enumerate(order) if name == "canary"]
    assert {later - earlier for earlier, later in pairwise(places)} == {10}
