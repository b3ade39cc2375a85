"""Places in the caller's text, held against the cleaning that moves them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_api.text import normalize_text
from luthier_serving.compute.offsets import original_positions

pytestmark = pytest.mark.unit

# White space of many kinds, and letters whose lower case is longer, or depends on what follows.
TEXTS = st.text(st.one_of(st.sampled_from("İΣΑß \t\n\x1c\x85\u2003aB"), st.characters(exclude_categories=["Cs"])))


@given(TEXTS, st.booleans(), st.booleans())
def test_every_character_of_the_cleaned_text_comes_from_the_place_that_is_named(
    text: str, lowercase: bool, strip_whitespace: bool
) -> None:
    cleaned = normalize_text(text, lowercase=lowercase, strip_whitespace=strip_whitespace)
    places = original_positions(text, lowercase=lowercase, strip_whitespace=strip_whitespace)
    assert len(places) == len(cleaned)
    assert places == sorted(places)
    for character, place in zip(cleaned, places, strict=True):
        origin = text[place]
        if character == " ":
            assert origin.isspace()
        elif character == "ς":
            assert origin in "Σς"
        else:
            assert character in (origin.lower() if lowercase else origin)


def test_a_letter_that_grows_in_lower_case_moves_what_follows() -> None:
    assert original_positions("  İ  x", lowercase=True, strip_whitespace=True) == [2, 2, 4, 5]
    assert original_positions(" x", lowercase=False, strip_whitespace=False) == [0, 1]
