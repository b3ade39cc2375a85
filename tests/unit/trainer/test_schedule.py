"""The plan of a training: every example once an epoch, whoever computes it and in however many pieces."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_trainer.engine.schedule import (
    BatchLimits,
    Lengths,
    Schedule,
    longest_first,
    micro_batches,
    rank_share,
)

pytestmark = pytest.mark.unit

lengths_of_texts = st.lists(st.integers(1, 60), min_size=1, max_size=80).map(lambda each: np.array(each, np.int32))


@given(lengths_of_texts, st.integers(1, 20), st.integers(0, 9), st.booleans(), st.integers(0, 3))
def test_an_epoch_sees_every_example_once(
    lengths: Lengths, per_step: int, seed: int, grouped: bool, epoch: int
) -> None:
    schedule = Schedule(lengths, per_step, seed, grouped=grouped)
    steps = range(epoch * schedule.steps_per_epoch, (epoch + 1) * schedule.steps_per_epoch)
    batches = [schedule.batch(step) for step in steps]
    assert Counter(np.concatenate(batches).tolist()) == Counter(range(len(lengths)))
    assert [len(each) for each in batches[:-1]] == [per_step] * (len(batches) - 1)


def test_the_order_is_one_of_the_seed_and_the_epoch_alone() -> None:
    lengths = np.arange(1, 101, dtype=np.int32)
    schedule, again = Schedule(lengths, 8, 1), Schedule(lengths, 8, 1)
    first, second = schedule.order(0).tolist(), schedule.order(1).tolist()
    assert first != second
    # A resumed run asks for the second epoch first.
    assert (again.order(1).tolist(), again.order(0).tolist()) == (second, first)
    assert Schedule(lengths, 8, 2).order(0).tolist() != first


def test_grouped_batches_hold_texts_of_about_one_length_in_random_order() -> None:
    lengths = np.random.default_rng(0).integers(5, 100, 400).astype(np.int32)
    schedule = Schedule(lengths, 8, 1, grouped=True)
    spans = [int(np.ptp(lengths[schedule.batch(step)])) for step in range(50)]
    assert max(spans) <= 12
    means = [float(lengths[schedule.batch(step)].mean()) for step in range(50)]
    assert means not in (sorted(means), sorted(means, reverse=True))


@given(lengths_of_texts, st.integers(1, 9), st.data())
def test_ranks_share_a_batch_without_repeats_and_evenly(lengths: Lengths, world: int, data: st.DataObject) -> None:
    batch = np.array(data.draw(st.permutations(range(len(lengths)))))
    shares = [rank_share(batch, lengths, rank, world) for rank in range(world)]
    assert Counter(np.concatenate(shares).tolist()) == Counter(batch.tolist())
    sizes = [len(each) for each in shares]
    assert max(sizes) - min(sizes) <= 1
    tokens = [int(lengths[each].sum()) for each in shares]
    # Dealt back and forth, two ranks differ by the longest text and one that one of them has more.
    assert max(tokens) - min(tokens) <= 2 * int(lengths.max())


def test_texts_are_dealt_back_and_forth_so_that_no_rank_always_has_the_longest() -> None:
    lengths = np.arange(1, 9, dtype=np.int32)
    shares = [lengths[rank_share(np.arange(8), lengths, rank, 2)].tolist() for rank in range(2)]
    assert shares == [[8, 5, 4, 1], [7, 6, 3, 2]]


@given(
    lengths_of_texts, st.integers(1, 20), st.integers(1, 300), st.booleans(), st.sampled_from([0, 64]), st.booleans()
)
def test_pieces_keep_the_limits_and_lose_nothing(
    lengths: Lengths, texts: int, tokens: int, packed: bool, padded_to: int, one_length: bool
) -> None:
    limits = BatchLimits(texts, tokens, 0 if packed else padded_to, packed, one_length)
    ordered = longest_first(np.arange(len(lengths)), lengths)
    pieces = micro_batches(ordered, lengths, limits)
    assert np.concatenate(pieces).tolist() == ordered.tolist()
    assert all(limits.allow([int(n) for n in lengths[piece]]) for piece in pieces)
    assert not one_length or all(len({*lengths[piece]}) == 1 for piece in pieces)
    for piece, after in itertools.pairwise(pieces):
        # One more would not have fitted.
        assert not limits.allow([int(n) for n in lengths[[*piece, after[0]]]])


@given(lengths_of_texts.filter(lambda each: len(each) > 1), st.booleans())
def test_halved_limits_cut_what_did_not_fit(lengths: Lengths, packed: bool) -> None:
    ordered = longest_first(np.arange(len(lengths)), lengths)
    limits = BatchLimits(100, 10_000, packed=packed).halved([int(n) for n in lengths[ordered]])
    pieces = micro_batches(ordered, lengths, limits)
    assert len(pieces) >= 2
    assert max(len(piece) for piece in pieces) <= max(1, len(lengths) // 2)
    longest, half = int(lengths.max()), limits.tokens
    assert max(limits.tokens_of([int(n) for n in lengths[piece]]) for piece in pieces) <= max(longest, half)
    assert half <= BatchLimits(100, 10_000, packed=packed).tokens_of([int(n) for n in lengths[ordered]]) // 2
