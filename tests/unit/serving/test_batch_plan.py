"""The plan of batches keeps the budget, forgets nothing, and pads only where it may."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_serving.compute.batch_plan import plan_batches

pytestmark = pytest.mark.unit

LENGTHS = st.lists(st.integers(1, 512), max_size=80)
BUDGET = st.integers(16, 4096)


@given(LENGTHS, BUDGET, st.booleans())
def test_every_text_is_in_exactly_one_batch(lengths: list[int], budget: int, pad: bool) -> None:
    plan = plan_batches(lengths, max_tokens=budget, pad=pad)
    assert sorted(index for batch in plan for index in batch) == list(range(len(lengths)))


@given(LENGTHS, BUDGET, st.booleans())
def test_no_batch_exceeds_the_budget_unless_it_is_one_long_text(lengths: list[int], budget: int, pad: bool) -> None:
    for batch in plan_batches(lengths, max_tokens=budget, pad=pad):
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= budget


@given(LENGTHS, BUDGET)
def test_without_padding_only_equal_lengths_share_a_batch_and_all_of_them_do(lengths: list[int], budget: int) -> None:
    plan = plan_batches(lengths, max_tokens=budget, pad=False)
    assert all(len({lengths[index] for index in batch}) == 1 for batch in plan)
    for length in set(lengths):
        batches = [batch for batch in plan if lengths[batch[0]] == length]
        fits = max(1, budget // length)
        assert len(batches) == -(-lengths.count(length) // fits)


@given(LENGTHS, BUDGET)
def test_with_padding_neighbours_in_length_share_a_batch(lengths: list[int], budget: int) -> None:
    plan = plan_batches(lengths, max_tokens=budget, pad=True)
    ranges = [(min(lengths[index] for index in batch), max(lengths[index] for index in batch)) for batch in plan]
    assert all(later[1] <= earlier[0] for earlier, later in pairwise(ranges))
