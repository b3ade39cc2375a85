"""Bad requests: each is refused with its status and one sentence that names what is wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_serving.errors import RequestError
from luthier_serving.replica.validation import Limits, check_content_type, parse_question

pytestmark = pytest.mark.unit

LIMITS = Limits(body_bytes=1024 * 1024, texts=1000, text_characters=100_000)

BAD = [
    ("no body", b"", 400, "no body"),
    ("blank body", b" \n", 400, "no body"),
    ("not JSON", b"text=hello", 400, "not JSON"),
    ("JSON cut short", b'{"text": "hel', 400, "not JSON"),
    ("two documents", b'{"text": "a"} {"text": "b"}', 400, "not JSON"),
    ("not UTF-8", '{"text": "café"}'.encode("latin-1"), 400, "not UTF-8"),
    ("brackets nested deep", b"[" * 100_000, 400, "nobody can read"),
    ("a number of 10,000 digits", b'{"text": ' + b"1" * 10_000 + b"}", 400, "nobody can read"),
    ("a list", b'["hello"]', 422, "is a list, not an object"),
    ("a string", b'"hello"', 422, "is a string, not an object"),
    ("null", b"null", 422, "is null, not an object"),
    ("no field", b"{}", 422, "exactly one"),
    ("both fields", b'{"text": "a", "texts": ["b"]}', 422, "exactly one"),
    ("unknown field", b'{"text": "a", "temperature": 1}', 422, "'temperature'"),
    ("text is a number", b'{"text": 7}', 422, "text is a number"),
    ("text is a boolean", b'{"text": true}', 422, "text is a boolean"),
    ("text is null", b'{"text": null}', 422, "text is null"),
    ("text is an object", b'{"text": {"a": 1}}', 422, "text is an object"),
    ("texts is a string", b'{"texts": "hello"}', 422, "texts is a string, not a list"),
    ("empty text", b'{"text": ""}', 422, "text is empty"),
    ("white space", b'{"text": " \\n\\t\\u2003"}', 422, "text is empty"),
    ("empty list", b'{"texts": []}', 422, "empty list"),
    ("empty text in a list", b'{"texts": ["a", "", "c"]}', 422, "texts[1] is empty"),
    ("number in a list", b'{"text": ["a", 2]}', 422, "text[1] is a number"),
    ("half a surrogate pair", b'{"text": "\\ud83d"}', 422, "surrogate"),
    ("10,000 texts", json.dumps({"texts": ["a"] * 10_000}).encode(), 413, "10000 texts; send at most 1000"),
    ("a long text", json.dumps({"text": "a" * 100_001}).encode(), 413, "100001 characters"),
    ("pair without a first", b'{"text_pair": "a"}', 422, "exactly one of the fields text and texts"),
    ("lists of pairs with one text", b'{"text": "a", "text_pairs": ["b"]}', 422, "text_pairs does not go with text;"),
    ("a text with a list of texts", b'{"texts": ["a"], "text_pair": "b"}', 422, "text_pair does not go with texts;"),
    ("two kinds of pairs", b'{"text": "a", "text_pair": "b", "text_pairs": ["c"]}', 422, "text_pairs does not go"),
    ("a pair of a text and a list", b'{"text": "a", "text_pair": ["b"]}', 422, "text_pair is a list, not a string"),
    ("a pair of a list and a text", b'{"text": ["a"], "text_pair": "b"}', 422, "text_pair is a string, not a list"),
    ("a pair with null", b'{"text": "a", "text_pair": null}', 422, "text_pair is null, not a string"),
    ("a pair missing", b'{"texts": ["a", "b"], "text_pairs": ["c"]}', 422, "texts holds 2 and text_pairs 1 texts"),
    ("an empty second text", b'{"text": "a", "text_pair": " "}', 422, "text_pair is empty"),
    ("a number for a second text", b'{"texts": ["a"], "text_pairs": [1]}', 422, "text_pairs[0] is a number"),
    ("a long second text", json.dumps({"text": "a", "text_pair": "a" * 100_001}).encode(), 413, "text_pair has 100001"),
    ("10 MB of text", json.dumps({"text": "a" * 10_000_000}).encode(), 413, "larger than 1048576 bytes"),
]


@pytest.mark.parametrize(("body", "status", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_body_is_refused_with_its_status_and_one_sentence(body: bytes, status: int, words: str) -> None:
    with pytest.raises(RequestError) as refusal:
        parse_question(body, LIMITS)
    assert refusal.value.status == status
    assert words in str(refusal.value)
    assert str(refusal.value).endswith(".") and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json"]
)
def test_a_body_that_says_it_is_not_json_is_refused(content_type: str) -> None:
    with pytest.raises(RequestError) as refusal:
        check_content_type(content_type)
    assert refusal.value.status == 415


@pytest.mark.parametrize(
    "content_type", [None, "application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"]
)
def test_json_by_any_of_its_names_is_taken(content_type: str | None) -> None:
    check_content_type(content_type)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: not text.isspace())


@given(st.lists(TEXTS, min_size=1, max_size=20), st.sampled_from(["text", "texts"]), st.booleans())
def test_texts_come_out_as_they_went_in(texts: list[str], field: str, ascii_only: bool) -> None:
    question = parse_question(json.dumps({field: texts}, ensure_ascii=ascii_only).encode(), LIMITS)
    assert (question.texts, question.single) == (texts, False)
    pairs = {field: texts, {"text": "text_pair", "texts": "text_pairs"}[field]: texts[::-1]}
    question = parse_question(json.dumps(pairs, ensure_ascii=ascii_only).encode(), LIMITS)
    assert (question.texts, question.single) == (list(zip(texts, texts[::-1], strict=True)), False)
    question = parse_question(json.dumps({"text": texts[0], "text_pair": texts[-1]}).encode(), LIMITS)
    assert (question.texts, question.single) == ([(texts[0], texts[-1])], True)
    one = parse_question(json.dumps({"text": texts[0]}, ensure_ascii=ascii_only).encode(), LIMITS)
    assert (one.texts, one.single) == ([texts[0]], True)


@given(st.binary(max_size=200))
def test_any_bytes_are_either_a_question_or_a_refusal(body: bytes) -> None:
    try:
        question = parse_question(body, LIMITS)
    except RequestError as refusal:
        assert 400 <= refusal.status < 500
    else:
        assert question.texts
