"""Words of a text: where the caller wrote them, whatever the tokenizer makes of white space and parts of words."""

from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

from luthier_api.documents import ServingDocument
from luthier_api.training import Task
from luthier_serving.answers import Text
from luthier_serving.compute.tokenization import Tokenization

pytestmark = pytest.mark.unit

VOCABULARY = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "good", "film", "##s", " film"]
IDS = {word: index for index, word in enumerate(VOCABULARY)}


def words(folder: Path, tokenizer: Tokenizer, text: str) -> list[tuple[int, str]]:
    """Return the first token of each word, and its characters in the text."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    document = ServingDocument(
        task=Task.TOKEN_CLASSIFICATION,
        labels=["O", "B-TITLE"],
        max_length=16,
        lowercase=True,
        strip_whitespace=False,
        pad_token_id=0,
    )
    [encoded] = Tokenization(folder, document, per_token=True).encode([text])
    return [(encoded.ids[word.token], text[word.start : word.end]) for word in encoded.words]


def test_white_space_of_any_kind_separates_words_as_in_training(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel(IDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    assert words(tmp_path, tokenizer, "Good\nFilm\t good") == [
        (IDS["good"], "Good"),
        (IDS["film"], "Film"),
        (IDS["good"], "good"),
    ]


def test_a_word_of_several_tokens_has_the_first_of_them_and_all_its_characters(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordPiece(IDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert words(tmp_path, tokenizer, "good  films") == [(IDS["good"], "good"), (IDS["film"], "films")]


def test_a_word_begins_after_the_white_space_that_its_token_contains(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel(IDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?\w+"), "isolated")
    assert words(tmp_path, tokenizer, "good film") == [(IDS["good"], "good"), (IDS[" film"], "film")]


def cut(folder: Path, texts: list[Text], *, task: Task = Task.TEXT_CLASSIFICATION, pairs: bool = False) -> list[int]:
    """Return how many tokens of each text are left out by a tokenizer that reads 8."""
    tokenizer = Tokenizer(models.WordLevel(IDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    document = ServingDocument(
        task=task,
        labels=["O", "B-TITLE"],
        max_length=8,
        lowercase=True,
        strip_whitespace=True,
        pad_token_id=0,
        pairs=pairs,
    )
    encoded = Tokenization(folder, document, per_token=task is Task.TOKEN_CLASSIFICATION).encode(texts)
    assert all(len(text.ids) <= 8 for text in encoded)
    return [text.cut for text in encoded]


WORDS = [1, 5, 6, 7, 12, 13, 40]


@pytest.mark.parametrize("task", [Task.TEXT_CLASSIFICATION, Task.TOKEN_CLASSIFICATION])
def test_the_tokens_of_a_text_beyond_the_limit_are_counted(tmp_path: Path, task: Task) -> None:
    texts: list[Text] = [" ".join(["good"] * words) for words in WORDS]
    assert cut(tmp_path, texts, task=task) == [max(0, words + 2 - 8) for words in WORDS]


def test_those_of_a_pair_are_counted_once_whichever_of_its_texts_is_too_long(tmp_path: Path) -> None:
    sizes = [(first, second) for first in WORDS for second in WORDS]
    texts: list[Text] = [(" ".join(["good"] * first), " ".join(["film"] * second)) for first, second in sizes]
    assert cut(tmp_path, texts, pairs=True) == [max(0, first + second + 3 - 8) for first, second in sizes]
