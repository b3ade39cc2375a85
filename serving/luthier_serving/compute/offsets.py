"""Where a character of the cleaned text was in the text that the caller sent.

Cleaning collapses white space and lowers the case, which may move every character; what is said of places in a text is
said of the caller's. Follows `luthier_api.text.normalize_text` step by step, and a test holds the two together.
"""

import re

_WORD = re.compile(r"\S+")


def original_positions(text: str, *, lowercase: bool, strip_whitespace: bool) -> list[int]:
    """Return the place in `text` of each character of `normalize_text(text)`."""
    kept = list(range(len(text)))
    if strip_whitespace:
        kept = []
        for word in _WORD.finditer(text):
            if kept:
                kept.append(word.start() - 1)
            kept.extend(range(word.start(), word.end()))
    # One character in lower case may be two ("İ").
    return [place for place in kept for _ in text[place].lower()] if lowercase else kept
