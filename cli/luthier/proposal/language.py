"""Which language texts are in: by their script, and in Latin script by the commonest words. And the model for it.

A table and not a library: seven languages have a base model of their own here, and every other one shares one. The
kept libraries for this weigh 100 MB.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_SAMPLE = 2000
_WORD = re.compile(r"[^\W\d_]+")
_STOP_WORDS = {
    "en": "the and is of to in it that was for with this not but are you have be on as they at very my had",
    "de": "der die und ist das nicht ich ein eine es mit den zu auf sie dem auch wie war für von sehr aber wir",
    "fr": "le la les et est des un une je pas que pour dans ce qui il sur avec très mais nous du sont vous",
    "es": "el la los que y es de en no un una por con para se muy pero las del lo más como está fue",
    "it": "il di che è la non un una per sono con le si in molto ma gli della questo ho come anche più del",
    "pt": "o a que e é de não um uma para com os em do da muito mas por se no na eu mais foi como",
    "nl": "de het een en is van niet ik dat op te in met voor zijn maar ook er aan heel was je die naar",
    "sv": "och att det som en är på jag inte för med av till den har ett om men var mycket de så från vi",
    "pl": "i w nie to na się jest z że do jak ale o po za tak co był bardzo od przez dla ten tego",
}
_WORDS = {language: frozenset(words.split()) for language, words in _STOP_WORDS.items()}
_SCRIPTS = {
    "CJK": "zh", "HIRAGANA": "ja", "KATAKANA": "ja", "HANGUL": "ko", "CYRILLIC": "ru", "ARABIC": "ar", "HEBREW": "he",
    "GREEK": "el", "THAI": "th", "DEVANAGARI": "hi", "LATIN": "latin",
}  # fmt: skip


@dataclass(frozen=True)
class BaseModel:
    """A model to start from."""

    uri: str
    lowercases: bool
    megabytes: int


MULTILINGUAL = BaseModel("hf://distilbert/distilbert-base-multilingual-cased", False, 540)
BASE_MODELS = {
    "en": BaseModel("hf://distilbert/distilbert-base-uncased", True, 270),
    "de": BaseModel("hf://distilbert/distilbert-base-german-cased", False, 270),
    "zh": BaseModel("hf://google-bert/bert-base-chinese", False, 410),
}
_NAMES = {
    "en": "English", "de": "German", "fr": "French", "es": "Spanish", "it": "Italian", "pt": "Portuguese",
    "nl": "Dutch", "sv": "Swedish", "pl": "Polish", "zh": "Chinese", "ja": "Japanese", "ko": "Korean",
    "ru": "Cyrillic script", "ar": "Arabic", "he": "Hebrew", "el": "Greek", "th": "Thai", "hi": "Devanagari script",
}  # fmt: skip


def detect_language(texts: Iterable[str]) -> str | None:
    """Return the code of the language that most texts are in, or None if they are mixed or say too little."""
    sample = [text for text, _ in zip((text for text in texts if text), range(_SAMPLE), strict=False)]
    scripts = Counter(script for text in sample for script in _scripts(text[:400]))
    if not scripts:
        return None
    script, count = scripts.most_common(1)[0]
    if scripts["ja"]:  # Japanese is written with Chinese characters too
        script, count = "ja", scripts["ja"] + scripts["zh"]
    if count < 0.8 * sum(scripts.values()):
        return None
    return _by_words(sample) if script == "latin" else script


def model_for(language: str | None) -> BaseModel:
    """Return the base model for a language."""
    return BASE_MODELS.get(language or "", MULTILINGUAL)


def name_of(language: str | None) -> str:
    """Return what a language is called; None is a mixture, or not known."""
    return _NAMES.get(language or "", "several languages, or one that is not recognized")


def _scripts(text: str) -> Iterable[str]:
    for character in text:
        if character.isalpha():
            name = unicodedata.name(character, "").split(" ", 1)[0]
            yield _SCRIPTS.get(name, name)


def _by_words(sample: list[str]) -> str | None:
    words = Counter(word.lower() for text in sample for word in _WORD.findall(text))
    total = sum(words.values())
    hits = {language: sum(words[word] for word in known) for language, known in _WORDS.items()}
    ordered = sorted(hits, key=lambda language: -hits[language])
    best, second = hits[ordered[0]], hits[ordered[1]]
    # A fifth of ordinary prose is such words; fewer in titles and queries.
    return ordered[0] if best > 0.04 * total and best > 1.3 * second else None
