"""The figure of drift: what it is of known counts, what chance makes of it, and what is counted in which bin."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_api.documents import Profile, ReferenceDocument, ServerConfig, ServerReport, Tally, compare_profiles
from luthier_api.documents.drift import CONFIDENCE_BINS, MOST_LABELS, TOKEN_BINS, UNKNOWN_EDGES, by_chance, psi

pytestmark = pytest.mark.unit

counts = st.lists(st.integers(0, 10_000), min_size=2, max_size=21).filter(any)


def test_the_figure_of_two_known_mixes_is_the_formula_of_the_textbook() -> None:
    textbook = (0.3 - 0.5) * math.log(0.3 / 0.5) + (0.7 - 0.5) * math.log(0.7 / 0.5)
    assert psi([50_000, 50_000], [30_000, 70_000]) == pytest.approx(textbook, rel=1e-3)
    assert psi([50, 50], [500, 500]) == pytest.approx(0)


@given(st.integers(2, 21).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 9999), min_size=n, max_size=n)] * 2)))
def test_the_figure_is_finite_never_negative_and_the_same_both_ways(rows: tuple[list[int], list[int]]) -> None:
    one, other = rows
    if not (any(one) and any(other)):
        return
    assert 0 <= psi(one, other) < math.inf
    assert psi(one, other) == pytest.approx(psi(other, one))


def test_bins_that_are_empty_on_both_sides_add_nothing_however_unequal_the_samples_are() -> None:
    assert psi([60, 40, 0, 0, 0], [60_000, 40_000, 0, 0, 0]) == pytest.approx(0, abs=1e-9)
    assert psi([60, 40, 0], [60_000, 40_000, 10]) < 0.001, "what a small reference could not show"
    assert psi([60, 40, 0], [30_000, 20_000, 50_000]) > 1, "what it would have shown"


@pytest.mark.parametrize(("bins", "reference", "now"), [(2, 100, 500), (8, 40, 500), (8, 1000, 1000), (14, 200, 2000)])
def test_samples_of_the_same_texts_stay_below_what_chance_makes(bins: int, reference: int, now: int) -> None:
    chance, above, rounds = random.Random(7), 0, 200
    weights = [chance.uniform(0.5, 2) for _ in range(bins)]
    for _ in range(rounds):
        one, other = ([0] * bins, [0] * bins)
        for row, size in ((one, reference), (other, now)):
            for index in chance.choices(range(bins), weights, k=size):
                row[index] += 1
        above += psi(one, other) > by_chance(one, other)
    assert above / rounds <= 0.01


@given(counts)
def test_adding_up_replicas_is_counting_all_of_their_texts(row: list[int]) -> None:
    half = [count // 2 for count in row]
    rest = [count - part for count, part in zip(row, half, strict=True)]
    one, other = Profile(texts=1, labels=half), Profile(texts=2, labels=rest)
    assert one.plus(other) == Profile(texts=3, labels=row)
    assert Profile().plus(one) == one


@pytest.mark.parametrize(
    ("confidence", "tokens", "unknown", "bins"),
    [
        (0.0, 1, 0, (0, 0, 0)),
        (0.0999, 2, 0, (0, 1, 0)),
        (0.1, 3, 1, (1, 2, 6)),
        (0.95, 4, 2, (9, 2, 6)),
        (1.0, 5, 3, (9, 3, 7)),
        (0.5, 8192, 81, (5, 13, 1)),
        (0.5, 8193, 82, (5, 13, 2)),
    ],
)
def test_each_text_is_in_one_bin_of_each_feature(
    confidence: float, tokens: int, unknown: int, bins: tuple[int, int, int]
) -> None:
    tally = Tally()
    tally.add(("good",), confidence, tokens, unknown)
    profile = tally.profile(["good", "bad"])
    assert (profile.texts, profile.labels) == (1, [1, 0, 0])
    found = tuple(row.index(1) for row in (profile.confidence, profile.tokens, profile.unknown))
    assert found == bins
    sizes = [len(profile.confidence), len(profile.tokens), len(profile.unknown)]
    assert sizes == [CONFIDENCE_BINS, TOKEN_BINS, len(UNKNOWN_EDGES) + 1]


def test_labels_without_a_bin_and_texts_without_a_label_share_the_last_one() -> None:
    tally = Tally()
    for labels in (("a", "b"), ("c",), (), ("a",)):
        tally.add(labels, 0.9, 5, 0)
    assert tally.profile(["a", "b"]).labels == [2, 1, 2]
    other = Tally()
    other.add((), 0.9, 5, 0)
    other.merge(tally)
    assert other.profile(["a"]).labels == [2, 4] and other.texts == 5


def test_only_what_both_sides_know_is_compared() -> None:
    profile = Profile(texts=10, labels=[5, 5, 0], confidence=[1] * 10, tokens=[1] * 14, unknown=[10, *[0] * 7])
    every = ReferenceDocument(label_names=["a", "b"], unknown_token_id=1, profile=profile)
    assert set(compare_profiles(every, profile)) == {"labels", "confidence", "tokens", "unknown"}
    bytes_only = every.model_copy(update={"unknown_token_id": None})
    assert "unknown" not in compare_profiles(bytes_only, profile), "a tokenizer of bytes knows everything"
    assert compare_profiles(every, Profile()) == {}
    other_release = profile.model_copy(update={"tokens": [1] * 20})
    assert "tokens" not in compare_profiles(every, other_release)


def test_a_report_of_the_largest_references_fits_what_the_operator_reads() -> None:
    names, most = [f"{number:02d}" + "é" * 254 for number in range(MOST_LABELS)], 2**31 - 1
    profile = Profile(
        texts=most, labels=[most] * (MOST_LABELS + 1), confidence=[most] * 10, tokens=[most] * 14, unknown=[most] * 8
    )
    reference = ReferenceDocument(label_names=names, unknown_token_id=1, profile=profile)
    drift = {name: {"reference": reference, "recent": profile} for name in ("rev-1", "rev-2")}
    report = ServerReport.model_validate({"replica": "r", "ready": True, "drift": drift})
    assert len(report.to_json().encode()) < 32 * 1024, "half of what it reads"
    assert ServerReport.from_json(report.to_json()) == report


def test_who_observes_nothing_has_no_word_of_it_in_any_document() -> None:
    assert "observe" not in ServerConfig(model_name="m").to_wire()
    assert "drift" not in ServerReport(replica="r", ready=True).to_wire()
