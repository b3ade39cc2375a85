"""Bad requests: each gets its status and one sentence that names what is wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_serving.errors import RequestError
from luthier_serving.replica.predictor import ServedModel
from luthier_serving.replica.protocols.interface import Call, HttpRequest
from luthier_serving.replica.protocols.predict import Predict
from luthier_serving.replica.validation import RequestLimits, check_content_type

pytestmark = pytest.mark.unit

LIMITS = RequestLimits(body_bytes=1024 * 1024, texts=1000, text_characters=100_000)
SERVED = ServedModel("reviews", adapters={"films": "v"})


def parse_body(body: bytes, limits: RequestLimits) -> Call:
    return Predict().parse(HttpRequest(body), limits, SERVED)


BAD = [
    ("no body", b"", 400, "no body"),
    ("blank body", b" \n", 400, "no body"),
    ("not JSON", b"text=hello", 400, "not JSON"),
    ("JSON cut short", b'{"text": "hel', 400, "not JSON"),
    ("two documents", b'{"text": "a"} {"text": "b"}', 400, "not JSON"),
    ("not UTF-8", '{"text": "café"}'.encode("latin-1"), 400, "not UTF-8"),
    ("brackets nested deep", b"[" * 100_000, 400, "nested too deeply, or with too long a number"),
    (
        "a number of 10,000 digits",
        b'{"text": ' + b"1" * 10_000 + b"}",
        400,
        "nested too deeply, or with too long a number",
    ),
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
    (
        "a pair of a text and a list",
        b'{"text": "a", "text_pair": ["b"]}',
        422,
        "text_pair is a list, not a string like text",
    ),
    (
        "a pair of a list and a text",
        b'{"text": ["a"], "text_pair": "b"}',
        422,
        "text_pair is a string, not a list of strings like text",
    ),
    ("a pair with null", b'{"text": "a", "text_pair": null}', 422, "text_pair is null, not a string"),
    ("a pair missing", b'{"texts": ["a", "b"], "text_pairs": ["c"]}', 422, "texts has 2 texts and text_pairs has 1"),
    ("an empty second text", b'{"text": "a", "text_pair": " "}', 422, "text_pair is empty"),
    ("a number for a second text", b'{"texts": ["a"], "text_pairs": [1]}', 422, "text_pairs[0] is a number"),
    ("a long second text", json.dumps({"text": "a", "text_pair": "a" * 100_001}).encode(), 413, "text_pair has 100001"),
    ("10 MB of text", json.dumps({"text": "a" * 10_000_000}).encode(), 413, "larger than 1048576 bytes"),
]


@pytest.mark.parametrize(("body", "status", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_body_gets_its_status_and_one_sentence(body: bytes, status: int, words: str) -> None:
    with pytest.raises(RequestError) as error:
        parse_body(body, LIMITS)
    assert error.value.status == status
    assert words in str(error.value)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content_type", "accepted"),
    [
        (None, True),
        ("", True),
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/vnd.api+json", True),
        ("text/plain", False),
        ("application/x-www-form-urlencoded", False),
        ("multipart/form-data; boundary=x", False),
        ("image/svg+json", False),
        ("application/jsonp", False),
        ("json", False),
    ],
)
def test_json_by_any_of_its_names_is_accepted_and_any_other_type_is_a_415(
    content_type: str | None, accepted: bool
) -> None:
    try:
        check_content_type(content_type)
    except RequestError as error:
        assert not accepted
        assert error.status == 415 and str(content_type).split(";")[0] in str(error)
    else:
        assert accepted


SMALL = RequestLimits(body_bytes=60, texts=3, text_characters=5)


@pytest.mark.parametrize(
    ("document", "over"),
    [
        ({"text": "12345"}, {"text": "123456"}),
        ({"text": ["12345"]}, {"text": ["123456"]}),
        ({"text": "ééééé"}, {"text": "éééééé"}),
        ({"texts": ["a", "b", "c"]}, {"texts": ["a", "b", "c", "d"]}),
        ({"text": "a", "text_pair": "12345"}, {"text": "a", "text_pair": "123456"}),
    ],
)
def test_what_is_exactly_at_a_limit_is_accepted_and_one_more_is_a_413(document: object, over: object) -> None:
    assert parse_body(json.dumps(document, ensure_ascii=False).encode(), SMALL).texts
    with pytest.raises(RequestError) as error:
        parse_body(json.dumps(over, ensure_ascii=False).encode(), SMALL)
    assert error.value.status == 413


def test_a_body_of_exactly_the_limit_is_accepted_and_one_byte_more_is_a_413() -> None:
    body = b'{"text": "a"}'.ljust(60)
    assert parse_body(body, SMALL).texts == ["a"]
    with pytest.raises(RequestError, match="larger than 60 bytes") as error:
        parse_body(body + b" ", SMALL)
    assert error.value.status == 413


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: not text.isspace())


@given(st.lists(TEXTS, min_size=1, max_size=20), st.sampled_from(["text", "texts"]), st.booleans())
def test_texts_come_out_as_they_went_in(texts: list[str], field: str, ascii_only: bool) -> None:
    request = parse_body(json.dumps({field: texts}, ensure_ascii=ascii_only).encode(), LIMITS)
    assert (request.texts, request.single) == (texts, False)
    pairs = {field: texts, {"text": "text_pair", "texts": "text_pairs"}[field]: texts[::-1]}
    request = parse_body(json.dumps(pairs, ensure_ascii=ascii_only).encode(), LIMITS)
    assert (request.texts, request.single) == (list(zip(texts, texts[::-1], strict=True)), False)
    request = parse_body(json.dumps({"text": texts[0], "text_pair": texts[-1]}).encode(), LIMITS)
    assert (request.texts, request.single) == ([(texts[0], texts[-1])], True)
    one = parse_body(json.dumps({"text": texts[0]}, ensure_ascii=ascii_only).encode(), LIMITS)
    assert (one.texts, one.single) == ([texts[0]], True)


@given(st.binary(max_size=200))
def test_any_bytes_are_either_a_request_or_an_error(body: bytes) -> None:
    try:
        request = parse_body(body, LIMITS)
    except RequestError as error:
        assert 400 <= error.status < 500
    else:
        assert request.texts


@pytest.mark.parametrize(
    ("body", "adapter"),
    [
        ({"text": "a"}, None),
        ({"text": "a", "model": None}, None),
        ({"text": "a", "model": "reviews"}, None),
        ({"texts": ["a"], "text_pairs": ["b"], "model": "reviews:films"}, "films"),
    ],
)
def test_a_body_may_name_the_model(body: dict[str, object], adapter: str | None) -> None:
    assert parse_body(json.dumps(body).encode(), LIMITS).adapter == adapter


def test_a_model_that_is_no_string_is_refused() -> None:
    with pytest.raises(RequestError, match="The field model is a number, not a string") as error:
        parse_body(b'{"text": "a", "model": 7}', LIMITS)
    assert error.value.status == 422
